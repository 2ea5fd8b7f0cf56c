#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

// The first thing that does not hold ends the run, with the place and the text of it.
#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// Whether `call` throws std::invalid_argument with `text` in its message.
template <typename Call>
bool refuses(Call call, const std::string& text) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    if (std::string(error.what()).find(text) != std::string::npos) return true;
    std::fprintf(stderr, "refused otherwise: %s\n", error.what());
  }
  return false;
}

// Each file of tests has one; main.cpp calls them.
void test_gather();
void test_kmeans();
void test_neighbours();
void test_packing();
void test_row_reduce();
void test_row_softmax();
void test_row_squares();
void test_shuffle();
void test_text_match();
void test_threads();
void test_windows();
