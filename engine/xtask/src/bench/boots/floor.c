/* The least that starting processes costs: vfork and execve, some at once, one reaper. As PID 1 of a namespace, like those that it
 * is the floor of.
 *
 * floor COUNT WIDTH PROGRAM LAST ARGUMENT... runs PROGRAM COUNT times, at most WIDTH at once, and then LAST.
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void start(char **words)
{
	if (vfork() == 0) {
		execve(words[0], words, environ);
		_exit(127);
	}
}

int main(int count, char **words)
{
	if (count < 5)
		return 2;
	int left = atoi(words[1]), width = atoi(words[2]), running = 0;
	char *program[] = {words[3], NULL};

	while (left > 0 || running > 0) {
		while (left > 0 && running < width) {
			start(program);
			left--;
			running++;
		}
		if (waitpid(-1, NULL, 0) > 0)
			running--;
		while (running > 0 && waitpid(-1, NULL, WNOHANG) > 0)
			running--;
	}
	start(words + 4);
	for (;;)
		pause();
}
