/* Says when it was run: a line LETTER NANOSECONDS PID into FILE. Then it becomes the program that follows, if one does.
 *
 * mark FILE LETTER [PROGRAM ARGUMENT...]
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct timespec now;
	char line[64];

	if (count < 3)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &now);
	long long at = now.tv_sec * 1000000000LL + now.tv_nsec;
	int length = snprintf(line, sizeof line, "%c %lld %d\n", *words[2], at, getpid());
	int file = open(words[1], O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, line, length) != length)
		return 1;
	if (count > 3) {
		close(file);
		execv(words[3], words + 3);
		return 127;
	}
	return 0;
}
