// Tests of csrc without Python, to be built with the sanitizers: `make sanitize`.

#include <cstdio>

#include "expect.h"

int main() {
  test_packing();
  test_windows();
  test_shuffle();
  test_gather();
  test_kmeans();
  test_row_reduce();
  test_row_softmax();
  test_row_squares();
  test_neighbours();
  test_text_match();
  test_threads();
  std::puts("all hold");
  return 0;
}
