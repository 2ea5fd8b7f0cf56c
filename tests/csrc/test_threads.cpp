#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "expect.h"
#include "threads.h"

namespace {

void test_each_item_is_done_once() {
  for (const int num_threads : {0, 1, 3, 8}) {
    std::vector<std::atomic<int>> done(1000);
    std::atomic<int> next{0};
    std::atomic<int> num_calls{0};
    codeact::on_threads(num_threads, [&] {
      ++num_calls;
      for (int item; (item = next++) < 1000;) ++done[item];
    });
    for (const auto& times : done) EXPECT(times == 1);
    EXPECT(num_calls >= 1 && num_calls <= std::max(1, num_threads));
  }
}

// Whichever thread it is, the others are waited for, and the caller hears of it.
void test_what_a_thread_throws_reaches_the_caller() {
  for (const int num_threads : {1, 4}) {
    for (int culprit = 0; culprit < num_threads; ++culprit) {
      std::atomic<int> next{0}, num_ended{0};
      bool caught = false;
      try {
        codeact::on_threads(num_threads, [&] {
          const int own = next++;
          ++num_ended;
          if (own == culprit) throw std::bad_alloc();
        });
      } catch (const std::bad_alloc&) {
        caught = true;
      }
      EXPECT(caught);
      EXPECT(num_ended == num_threads);
    }
  }
}

}  // namespace

void test_threads() {
  test_each_item_is_done_once();
  test_what_a_thread_throws_reaches_the_caller();
}
