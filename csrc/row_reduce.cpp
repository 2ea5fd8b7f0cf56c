#include "row_reduce.h"

#include <algorithm>
#include <atomic>

#include "check.h"
#include "row_kernels.h"
#include "threads.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace codeact {
namespace {

bool has_avx2() {
#if defined(__x86_64__) || defined(__i386__)
  unsigned int eax, ebx, ecx, edx;
  // Not every compiler's __builtin_cpu_supports knows F16C.
  const bool has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  return has_f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__) || defined(__i386__)
  return has_avx2() && __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

const RowKernels* kernels(Level level) {
  switch (level) {
    case Level::kAvx512:
      return has_avx512() ? avx512_row_kernels() : nullptr;
    case Level::kAvx2:
      return has_avx2() ? avx2_row_kernels() : nullptr;
    case Level::kPlain:
      return plain_row_kernels();
  }
  return nullptr;
}

// A thread costs some 30 us to start. 2^20 elements take 400 us to reduce; a quarter of that pays
// for the thread that does it.
constexpr int64_t kThreadedElements = int64_t{1} << 20;
constexpr int64_t kElementsPerThread = kThreadedElements / 4;

// Calls reduce(first, last) until all rows are done, in parallel where that pays. Rows are handed
// out in small groups, since ignored ones take no time.
template <typename Reduce>
void over_rows(int64_t num_rows, int64_t num_cols, int num_threads, Reduce reduce) {
  const int64_t num_elements = num_rows * num_cols;
  if (num_threads <= 1 || num_rows <= 1 || num_elements < kThreadedElements) {
    return reduce(int64_t{0}, num_rows);
  }
  num_threads = static_cast<int>(
      std::min({int64_t{num_threads}, num_rows, num_elements / kElementsPerThread}));
  const int64_t size = std::max<int64_t>(1, num_rows / (int64_t{8} * num_threads));
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t first; (first = next.fetch_add(size)) < num_rows;) {
      reduce(first, std::min(first + size, num_rows));
    }
  };
  on_threads(num_threads, work);
}

// `member` of the level's kernels over the rows of a job.
template <typename Job>
void run(const Job& job, void (*RowKernels::*member)(const Job&, int64_t, int64_t),
         int64_t num_rows, int64_t num_cols, int num_threads, Level level) {
  const RowKernels* const chosen = kernels(level);
  check(chosen != nullptr, "this processor or this build lacks the instructions asked for");
  over_rows(num_rows, num_cols, num_threads,
            [&](int64_t first, int64_t last) { (chosen->*member)(job, first, last); });
}

void check_squares(const SquareRows& rows) {
  check(rows.sample_stride >= (rows.num_samples + 63) / 64 * 64, "sample_stride must be ",
        rows.num_samples, " rounded up to 64, got ", rows.sample_stride);
}

void check_rule(const LogitRule& rule) {
  check(rule.softcap >= 0, "softcap must not be negative, got ", rule.softcap);
  check(rule.temperature > 0, "temperature must be positive, got ", rule.temperature);
}

}  // namespace

bool usable(Level level) { return kernels(level) != nullptr; }

Level best_level() {
  static const Level best = usable(Level::kAvx512) ? Level::kAvx512
                            : usable(Level::kAvx2) ? Level::kAvx2
                                                   : Level::kPlain;
  return best;
}

void lse_rows(const LseRows& job, int num_threads, Level level) {
  check_rule(job.rule);
  run(job, &RowKernels::lse, job.tile.num_rows, job.tile.num_cols, num_threads, level);
}

void lse_tangent_rows(const LseTangentRows& job, int num_threads, Level level) {
  const Tile& tile = job.primal.tile;
  check_rule(job.primal.rule);
  run(job, &RowKernels::lse_tangent, tile.num_rows, tile.num_cols, num_threads, level);
}

void max_rows(const MaxRows& job, int num_threads, Level level) {
  run(job, &RowKernels::max, job.tile.num_rows, job.tile.num_cols, num_threads, level);
}

void square_lse(const SquareLse& job, int num_threads, Level level) {
  const SquareRows& rows = job.rows;
  check_squares(rows);
  check(job.scale > 0, "scale must be positive, got ", job.scale);
  run(job, &RowKernels::square_lse, rows.num_points, rows.num_samples, num_threads, level);
}

void square_max(const SquareMax& job, int num_threads, Level level) {
  const SquareRows& rows = job.rows;
  check_squares(rows);
  run(job, &RowKernels::square_max, rows.num_points, rows.num_samples, num_threads, level);
}

void nll_rows(const NllRows& job, int num_threads, Level level) {
  run(job, &RowKernels::nll, job.rows.num_rows, job.rows.num_cols, num_threads, level);
}

void softmax_gradient_rows(const SoftmaxGradientRows& job, int num_threads, Level level) {
  check_rule(job.rule);
  run(job, &RowKernels::softmax_gradient, job.rows.num_rows, job.rows.num_cols, num_threads, level);
}

}  // namespace codeact
