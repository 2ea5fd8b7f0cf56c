// 32-bit system calls from a 64-bit program: a filter that reads numbers of one architecture only
// takes them for others. Exits with 0 if ptrace(PTRACE_TRACEME) worked through the old gate.
#include <stdio.h>

int main(void) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(26L), "b"(0L), "c"(0L), "d"(0L), "S"(0L) : "memory");
  printf("%ld\n", result);
  return result == 0 ? 0 : 9;
}
