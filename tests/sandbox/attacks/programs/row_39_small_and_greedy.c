// Smaller than whatever watches it, and its memory is in files: whom does the kernel kill?
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static char chunk[1 << 20];

int main(void) {
  for (int number = 0; number < 192; ++number) {
    char path[32];
    snprintf(path, sizeof path, "/box/file%d", number);
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    if (write(file, chunk, sizeof chunk) < 0) break;
    close(file);
  }
  return 0;
}
