#include "kmeans.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <vector>

#include "check.h"
#include "kmeans_kernels.h"
#include "threads.h"

namespace codeact {
namespace {

const KMeansKernels& kernels(Level level) {
  // row_reduce.h knows the processor; AVX2 there includes FMA.
  const KMeansKernels* const chosen = !usable(level)            ? nullptr
                                      : level == Level::kAvx512 ? avx512_kmeans_kernels()
                                      : level == Level::kAvx2   ? avx2_kmeans_kernels()
                                                                : plain_kmeans_kernels();
  check(chosen != nullptr, "this processor or this build lacks the instructions asked for");
  return *chosen;
}

// Calls work(block, first, last) for each block of rows, each thread taking the next one.
template <typename Work>
void over_blocks(int64_t num_rows, int num_threads, Work work) {
  const int64_t num_blocks = (num_rows + kBlockRows - 1) / kBlockRows;
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t block; (block = next.fetch_add(1)) < num_blocks;) {
      const int64_t first = block * kBlockRows;
      work(block, first, std::min(first + kBlockRows, num_rows));
    }
  };
  // Below some 16 blocks a thread costs more to start than it saves.
  num_threads = static_cast<int>(std::min<int64_t>(num_threads, num_blocks / 16));
  on_threads(num_threads, run);
}

// The sums of clusters while threads add to them, behind a lock for each few clusters. A thread
// comes with a whole block, sorted by cluster, and takes a sum over from another's cache once.
class LockedSums {
 public:
  LockedSums(const AssignRows& job, const KMeansKernels& kernels) : job_(job), kernels_(kernels) {}

  void move(const MovedRow& moved) {
    if (moved.from >= 0) add(moved.row, moved.from, -1);
    add(moved.row, job_.labels[moved.row], 1);
  }

 private:
  void add(int64_t row, int32_t cluster, int sign) {
    const int64_t dim = job_.centroids.dim;
    const std::lock_guard<std::mutex> held(locks_[cluster % kLocks]);
    kernels_.add(job_.points + row * dim, dim, job_.rounder, sign, job_.sums + cluster * dim);
    job_.counts[cluster] += sign;
  }

  static constexpr int kLocks = 256;
  const AssignRows& job_;
  const KMeansKernels& kernels_;
  std::mutex locks_[kLocks];
};

float squared_gap(const float* a, const float* b, int64_t dim) {
  constexpr int kLanes = 16;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float gap = a[i + lane] - b[i + lane];
      sums[lane] += gap * gap;
    }
  }
  double sum = 0;
  for (; i < dim; ++i) sum += static_cast<double>(a[i] - b[i]) * (a[i] - b[i]);
  for (const float lane : sums) sum += lane;
  return static_cast<float>(sum);
}

}  // namespace

AssignCounts assign_rows(const AssignRows& job, int num_threads, Level level) {
  const KMeansKernels& chosen = kernels(level);
  LockedSums sums(job, chosen);
  std::atomic<int64_t> num_moved{0}, num_panels{0};
  over_blocks(job.num_rows, num_threads, [&](int64_t, int64_t first, int64_t last) {
    MovedRow moved[kBlockRows];
    int64_t panels = 0;
    const int64_t count = chosen.assign(job, first, last, moved, &panels);
    std::sort(moved, moved + count, [&](const MovedRow& a, const MovedRow& b) {
      return job.labels[a.row] < job.labels[b.row];
    });
    for (int64_t i = 0; i < count; ++i) sums.move(moved[i]);
    num_moved += count;
    num_panels += panels;
  });
  return {num_moved, num_panels};
}

void candidate_rows(const CandidateRows& job, int num_threads, Level level) {
  const KMeansKernels& chosen = kernels(level);
  check(job.candidates.num_clusters <= kPanel, "candidates must be at most ", kPanel, ", got ",
        job.candidates.num_clusters);
  std::vector<double> of_blocks((job.num_rows + kBlockRows - 1) / kBlockRows * kPanel);
  over_blocks(job.num_rows, num_threads, [&](int64_t block, int64_t first, int64_t last) {
    chosen.candidates(job, first, last, of_blocks.data() + block * kPanel);
  });
  std::fill(job.potentials, job.potentials + kPanel, 0.0);
  for (size_t i = 0; i < of_blocks.size(); ++i) job.potentials[i % kPanel] += of_blocks[i];
}

float arrange_rows(const ArrangeRows& job, int num_threads) {
  std::vector<float> largest((job.num_rows + kBlockRows - 1) / kBlockRows);
  over_blocks(job.num_rows, num_threads, [&](int64_t block, int64_t first, int64_t last) {
    float most = 0;
    for (int64_t row = first; row < last; ++row) {
      const float* const from = job.points + job.order[row] * job.dim;
      float* const to = job.arranged + row * job.dim;
      for (int64_t i = 0; i < job.dim; ++i) {
        to[i] = from[i] - job.centre[i];
        most = std::max(most, std::fabs(to[i]));
      }
    }
    // Again, from the cache: GCC makes vectors of each loop, but not of both in one.
    const std::vector<float> origin(job.dim);
    for (int64_t row = first; row < last; ++row) {
      job.squares[row] = squared_gap(job.arranged + row * job.dim, origin.data(), job.dim);
    }
    largest[block] = most;
  });
  return largest.empty() ? 0 : *std::max_element(largest.begin(), largest.end());
}

void own_distances(const OwnDistances& job, int num_threads) {
  over_blocks(job.num_rows, num_threads, [&](int64_t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const int64_t label = job.labels[row];
      job.distances[row] = label < 0
                               ? std::nanf("")
                               : std::sqrt(squared_gap(job.points + row * job.dim,
                                                       job.centroids + label * job.dim, job.dim));
    }
  });
}

}  // namespace codeact
