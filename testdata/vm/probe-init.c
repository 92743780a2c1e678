// The smallest PID 1: says what it finds, then turns the machine off. It proves that the kernel
// takes the archive as it is, before any of Keel's own code runs.
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void file(const char *path) {
    struct stat s;
    char target[256] = "";
    if (lstat(path, &s) != 0) {
        printf("PROBE %s missing\n", path);
    } else if (S_ISLNK(s.st_mode)) {
        target[readlink(path, target, sizeof target - 1)] = 0;
        printf("PROBE %s link %s\n", path, target);
    } else if (S_ISCHR(s.st_mode)) {
        printf("PROBE %s device %u %u\n", path, major(s.st_rdev), minor(s.st_rdev));
    } else {
        printf("PROBE %s %o uid %u mtime %ld\n", path, s.st_mode, s.st_uid, (long)s.st_mtime);
    }
}

int main(void) {
    // Standard streams are open: the kernel found /dev/console in the archive.
    setvbuf(stdout, NULL, _IONBF, 0);
    file("/init");
    file("/sbin");
    file("/usr/sbin");
    file("/lib64");
    file("/dev/console");
    file("/tmp");
    file("/etc/keel/config.toml");
    file("/etc/keel/units/boot.toml");
    file("/sbin/mkfs.ext4");
    // A dynamic program of the payload, through the loader and libraries that came with it.
    fflush(stdout);
    if (vfork() == 0) {
        execl("/usr/bin/mount", "mount", "--version", (char *)NULL);
        _exit(1);
    }
    int status = 1;
    wait(&status);
    printf("PROBE mount exits %d\n", status);
    printf("PROBE done\n");
    sync();
    reboot(RB_POWER_OFF);
    return 0;
}
