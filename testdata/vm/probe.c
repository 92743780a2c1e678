// What VM tests run inside a node. It speaks on the console, one line per finding.
//
//   probe victim            sleeps for ever
//   probe kill N            kills the victim N times and says how long each took to come back
//   probe orphans N WAVES   leaves N orphans to PID 1 in waves, and waits until none is left
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long millis(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Reads a file of /proc; a process that is gone has an empty one.
static size_t slurp(const char *path, char *buffer, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, buffer, size - 1);
    if (file >= 0) close(file);
    buffer[got > 0 ? got : 0] = 0;
    return got > 0 ? got : 0;
}

// Memory of PID 1 in KiB, page by page. VmRSS in /proc/1/status is an estimate: up to 6.1 the kernel keeps up to 64 page faults of each
// thread to itself before it adds them, so that VmRSS stands some 330 KiB too low, and then leaps though nothing was taken.
static long rss(void) {
    char rollup[4096];
    slurp("/proc/1/smaps_rollup", rollup, sizeof rollup);
    char *line = strstr(rollup, "\nRss:");
    return line ? strtol(line + 5, NULL, 10) : -1;
}

// The victim's PID, or 0.
static pid_t victim(void) {
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;
    while (!found && (entry = readdir(proc))) {
        char path[300], line[64];
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
        size_t got = slurp(path, line, sizeof line);
        if (got == sizeof "/usr/bin/vm-probe\0victim" && !memcmp(line, "/usr/bin/vm-probe\0victim", got))
            found = atoi(entry->d_name);
    }
    closedir(proc);
    return found;
}

static pid_t wait_for_victim(pid_t old) {
    pid_t now;
    while ((now = victim()) == 0 || now == old) usleep(5000);
    return now;
}

// Children of PID 1 that are dead and not reaped.
static int zombies(void) {
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(proc))) {
        char path[300], stat[512], state;
        int parent;
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        slurp(path, stat, sizeof stat);
        char *end = strrchr(stat, ')');
        if (end && sscanf(end + 1, " %c %d", &state, &parent) == 2 && state == 'Z' && parent == 1) count++;
    }
    closedir(proc);
    return count;
}

static void kill_often(FILE *console, int times) {
    pid_t pid = wait_for_victim(0);
    for (int n = 1; n <= times; n++) {
        long before = millis();
        kill(pid, SIGKILL);
        pid = wait_for_victim(pid);
        fprintf(console, "PROBE kill %d back %ld rss %ld\n", n, millis() - before, rss());
    }
}

static void leave_orphans(FILE *console, int count, int waves) {
    long before = rss(), start = millis();
    for (int wave = 0; wave < waves; wave++) {
        // Every orphan waits for the gate to close, so a whole wave lives at once and dies at once.
        int gate[2];
        if (pipe(gate) != 0) return;
        pid_t parent = fork();
        if (parent == 0) {
            close(gate[1]);
            for (int n = 0; n < count / waves; n++) {
                pid_t orphan = fork();
                if (orphan < 0) _exit(1);
                if (orphan == 0) {
                    char end;
                    while (read(gate[0], &end, 1) > 0) {}
                    _exit(0);
                }
            }
            _exit(0);
        }
        int status = 1;
        waitpid(parent, &status, 0);
        close(gate[0]);
        close(gate[1]);
        if (status != 0) fprintf(console, "PROBE fork failed\n");
    }
    while (zombies() > 0) usleep(5000);
    fprintf(console, "PROBE orphans %d gone after %ld rss %ld then %ld\n", count, millis() - start, before, rss());
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "victim")) {
        for (;;) pause();
    }
    FILE *console = fopen("/dev/console", "we");
    if (!console) return 1;
    setvbuf(console, NULL, _IOLBF, 0);
    if (argc == 3 && !strcmp(argv[1], "kill")) kill_often(console, atoi(argv[2]));
    if (argc == 4 && !strcmp(argv[1], "orphans")) {
        leave_orphans(console, atoi(argv[2]), atoi(argv[3]));
    }
    fprintf(console, "PROBE done\n");
    return 0;
}
