#include <limits>
#include <memory>

#include "expect.h"
#include "gather.h"

namespace {

using Int64s = std::vector<int64_t>;
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

int64_t total(const Int64s& starts, const Int64s& stops, int64_t num_values) {
  return codeact::checked_total(starts.data(), stops.data(), static_cast<int64_t>(starts.size()),
                                num_values);
}

template <typename T>
Int64s gather(const std::vector<T>& values, const Int64s& starts, const Int64s& stops) {
  Int64s out(total(starts, stops, static_cast<int64_t>(values.size())), -1);
  codeact::gather_tokens(values.data(), starts.data(), stops.data(),
                         static_cast<int64_t>(starts.size()), out.data());
  return out;
}

template <typename T>
void test_widening() {
  const T least = std::numeric_limits<T>::min();
  const T most = std::numeric_limits<T>::max();
  const std::vector<T> values{least, 1, 2, most};
  EXPECT((gather(values, {2, 0, 4}, {4, 2, 4}) ==
          Int64s{2, static_cast<int64_t>(most), static_cast<int64_t>(least), 1}));
  EXPECT(gather<T>({}, {}, {}).empty());
  EXPECT(gather<T>({}, {0, 0}, {0, 0}).empty());
}

void test_refused_segments() {
  EXPECT(total({0, 9}, {9, 9}, 9) == 9);
  EXPECT(refuses([] { total({0}, {10}, 9); }, "segment 0 = [0, 10) does not lie in 9 values"));
  EXPECT(refuses([] { total({0, -1}, {1, 1}, 9); }, "segment 1 = [-1, 1)"));
  EXPECT(refuses([] { total({4}, {3}, 9); }, "segment 0 = [4, 3)"));
  EXPECT(refuses([] { total({-kMax - 1}, {kMax}, 9); }, "does not lie in 9 values"));
  EXPECT(refuses([] { total({0, 0}, {kMax, 1}, kMax); }, "more than 2**63 - 1 values"));
}

int32_t sum(const std::vector<int32_t>& seqlens, int64_t limit) {
  return codeact::checked_sum(seqlens.data(), static_cast<int64_t>(seqlens.size()), limit);
}

void test_sums() {
  const int32_t most = std::numeric_limits<int32_t>::max();
  EXPECT(sum({}, most) == 0);
  EXPECT(sum({most, 0}, most) == most);
  EXPECT(refuses([=] { sum({most, 1}, most); }, "seqlens sum to more than 2147483647 tokens"));
  EXPECT(refuses([=] { sum({most, most, most}, most); }, "seqlens sum to more than"));
  EXPECT(refuses([=] { sum({3, -1}, most); }, "seqlens[1] = -1 is negative"));
}

void test_layouts() {
  const std::vector<int32_t> seqlens{0, 3, 0, 2};
  Int64s position_ids(5, -1);
  std::vector<int32_t> seq_idx(5, -1);
  std::vector<int32_t> cu_seqlens(5, -1);
  codeact::pack_layout(seqlens.data(), 4, position_ids.data(), seq_idx.data(), cu_seqlens.data());
  EXPECT((position_ids == Int64s{0, 1, 2, 0, 1}));
  EXPECT((seq_idx == std::vector<int32_t>{1, 1, 1, 3, 3}));
  EXPECT((cu_seqlens == std::vector<int32_t>{0, 0, 3, 3, 5}));
  codeact::pack_layout(nullptr, 0, nullptr, nullptr, cu_seqlens.data());
  EXPECT(cu_seqlens[0] == 0);
}

}  // namespace

void test_gather() {
  test_widening<int16_t>();
  test_widening<uint16_t>();
  test_widening<int32_t>();
  test_widening<uint32_t>();
  test_widening<int64_t>();
  test_refused_segments();
  test_sums();
  test_layouts();
}
