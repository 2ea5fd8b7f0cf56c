// Recurses without end on the C stack.
#include <stdio.h>

static volatile int sink;

static int down(int depth) {
  char frame[4096];
  frame[depth & 4095] = (char)depth;
  sink = frame[0];
  return down(depth + 1) + frame[(depth + 1) & 4095];
}

int main(void) {
  printf("%d\n", down(0));
  return 0;
}
