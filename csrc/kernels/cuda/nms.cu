// Non-maximum suppression without the host knowing what is kept.
//
// Boxes are sorted by image, group and score, into segments of one image and group each. A segment
// is cut into tiles of 512 boxes. Within all tiles at once, every box notes whom it overlaps, a bit
// for each. Then, step by step, the s-th tile of every segment is resolved, by a warp that goes
// through its bits, and the boxes that it keeps suppress those behind the tile, in parallel. The
// number of steps and of blocks follows from the number of boxes alone.
//
// Scratch: about 140 bytes for each box, 64 of them the bits of the tiles.
#include <cstdint>
#include <stdexcept>

#include "core/context.h"
#include "kernels/cuda/boxes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/scan.cuh"
#include "kernels/cuda/sort.cuh"
#include "kernels/suppression.h"

namespace deformops::cuda {
namespace {

constexpr int kTile = 512;
constexpr int kWords = kTile / 32;  // bits of a row of a tile
constexpr int kColumns = kTile / kBoxThreads;

// The higher the score the lower its key; NaN has the lowest, and 0 and -0 have the same.
__device__ __forceinline__ uint64_t falling_key(float score) {
  if (score != score) return 0;
  const uint32_t bits = bit_cast<uint32_t>(score + 0.0f);
  return bits >> 31 ? bits : bits ^ 0x7fffffffu;
}

__device__ __forceinline__ uint64_t falling_key(double score) {
  if (score != score) return 0;
  const uint64_t bits = bit_cast<uint64_t>(score + 0.0);
  return bits >> 63 ? bits : bits ^ (~uint64_t{0} >> 1);
}

__device__ __forceinline__ int64_t thread_number() {
  return static_cast<int64_t>(blockIdx.x) * kBoxThreads + threadIdx.x;
}

// Entries are boxes counted over all images.
template <class T>
__global__ void __launch_bounds__(kBoxThreads)
    score_keys_kernel(View<const T, 2> scores, Pairs<uint64_t> pairs) {
  const int64_t i = thread_number(), count = scores.sizes[1];
  if (i >= scores.sizes[0] * count) return;
  pairs.keys[i] = falling_key(static_cast<compute_t<T>>(scores(i / count, i % count)));
  pairs.entries[i] = static_cast<uint32_t>(i);
}

// Which image an entry is of.
__global__ void __launch_bounds__(kBoxThreads)
    image_keys_kernel(int64_t total, int64_t count, Pairs<uint64_t> pairs) {
  const int64_t i = thread_number();
  if (i < total) pairs.keys[i] = pairs.entries[i] / static_cast<uint64_t>(count);
}

// Entries become ranks: places in the order of images and scores.
__global__ void __launch_bounds__(kBoxThreads)
    group_keys_kernel(View<const int64_t, 2> groups, const uint32_t* ranked,
                      Pairs<uint64_t> pairs) {
  const int64_t rank = thread_number(), count = groups.sizes[1];
  if (rank >= groups.sizes[0] * count) return;
  const int64_t i = ranked[rank];
  pairs.keys[rank] = static_cast<uint64_t>(groups(i / count, i % count));
  pairs.entries[rank] = static_cast<uint32_t>(rank);
}

// The box of every place in the order of segments; one that overlaps nothing is made empty.
template <class T>
__global__ void __launch_bounds__(kBoxThreads)
    order_boxes_kernel(View<const T, 3> boxes, BoxMeasure<compute_t<T>> measure,
                       const uint32_t* ranked, const uint32_t* ranks,
                       AlignedBox<compute_t<T>>* ordered) {
  using C = compute_t<T>;
  const int64_t place = thread_number(), count = boxes.sizes[1];
  if (place >= boxes.sizes[0] * count) return;
  const int64_t i = ranked[ranks == nullptr ? place : ranks[place]];
  AlignedBox<C> box = load_box<C>(boxes, i / count, i % count);
  if (!measure.can_overlap(box)) box = {kEmptyBox<C>};
  ordered[place] = box;
}

// 1 where a segment begins; one number more than there are places, for their sums.
__global__ void __launch_bounds__(kBoxThreads)
    mark_segments_kernel(View<const int64_t, 2> groups, const uint32_t* ranked,
                         const uint32_t* ranks, uint32_t* begins) {
  const int64_t place = thread_number(), count = groups.sizes[1];
  const int64_t total = groups.sizes[0] * count;
  if (place > total) return;
  const auto group_at = [&](int64_t at) {
    const int64_t i = ranked[ranks[at]];
    return groups(i / count, i % count);
  };
  const bool inside = place < total;
  begins[place] = inside && (place % count == 0 || group_at(place) != group_at(place - 1)) ? 1 : 0;
}

// begins[place] has become the number of segments that begin before the place.
__global__ void __launch_bounds__(kBoxThreads)
    find_starts_kernel(const uint32_t* begins, int64_t total, uint32_t* starts) {
  const int64_t place = thread_number();
  if (place >= total) return;
  if (begins[place + 1] > begins[place]) starts[begins[place]] = static_cast<uint32_t>(place);
  if (place == total - 1) starts[begins[total]] = static_cast<uint32_t>(total);
}

// Where the segment of a place begins and ends. Without groups these are the images.
struct Segments {
  const uint32_t* begins;
  const uint32_t* starts;
  int64_t count;  // boxes of an image

  __device__ int64_t first(int64_t place) const {
    return begins == nullptr ? place / count * count : starts[begins[place + 1] - 1];
  }
  __device__ int64_t end(int64_t place) const {
    return begins == nullptr ? (place / count + 1) * count : starts[begins[place + 1]];
  }
};

// How pairs are judged.
template <class C>
struct Judge {
  BoxMeasure<C> measure;
  OverlapThreshold<C> limit;

  __device__ C share(const Box<C>& box) const { return limit.share(measure.area(box)); }

  __device__ bool suppresses(const Box<C>& a, C share_a, const Box<C>& b, C share_b) const {
    const C common = measure.intersection(a, b);
    return common > share_a + share_b && measure.overlap(a, b) > limit.threshold;
  }
};

// rows[place * kWords + word]: which boxes behind this one, in its tile, it overlaps too much. A
// warp has a place, its lanes the bits of a word.
template <class C>
__global__ void __launch_bounds__(kBoxThreads)
    find_rows_kernel(const AlignedBox<C>* ordered, int64_t total, Segments segments, Judge<C> judge,
                     uint32_t* rows) {
  const int lane = threadIdx.x % 32;
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kBoxWarps + threadIdx.x / 32;
  if (place >= total) return;
  const int64_t first = segments.first(place), segment_end = segments.end(place);
  const int64_t tile = first + (place - first) / kTile * kTile;
  const int64_t end = tile + kTile < segment_end ? tile + kTile : segment_end;
  const AlignedBox<C> box = ordered[place];
  const C share = judge.share(box);
  uint32_t own = 0;  // the word that this lane will write
  for (int word = static_cast<int>(place - tile) / 32; word < kWords; ++word) {
    const int64_t column = tile + 32 * word + lane;
    bool suppressed = false;
    if (column > place && column < end) {
      const AlignedBox<C> other = ordered[column];
      suppressed = judge.suppresses(box, share, other, judge.share(other));
    }
    const uint32_t bits = __ballot_sync(~0u, suppressed);
    if (lane == word) own = bits;
  }
  if (lane < kWords) rows[place * kWords + lane] = own;
}

// Decides in the tile number `step` of every segment. A warp looks at each of the places
// 0, stride, 2 * stride ...: no segment with such a tile is without one.
__global__ void __launch_bounds__(kBoxThreads)
    resolve_tiles_kernel(const uint32_t* rows, int64_t total, Segments segments, int64_t step,
                         int64_t stride, uint8_t* dead) {
  const int lane = threadIdx.x % 32;
  const int64_t mark = (static_cast<int64_t>(blockIdx.x) * kBoxWarps + threadIdx.x / 32) * stride;
  if (mark >= total) return;
  const int64_t first = segments.first(mark);
  const int64_t tile = first + step * kTile;
  const int64_t left = segments.end(mark) - tile;
  // The segment belongs to its first mark. In step 0 only its first place is one: without groups
  // the stride is the image, else 1.
  const bool is_first = step == 0 ? mark == first : mark - stride < first;
  if (!is_first || left <= 0) return;
  const int count = static_cast<int>(left < kTile ? left : kTile);

  // A lane's word of those that are dead; places that do not exist are.
  uint32_t dead_word = ~0u;
  uint32_t diagonal[kWords];  // of box 32 * word + lane: which of the same word it overlaps
#pragma unroll
  for (int word = 0; word < kWords; ++word) {
    const int row = 32 * word + lane;
    const bool exists = row < count;
    const uint32_t bits = __ballot_sync(~0u, !exists || dead[tile + row]);
    if (lane == word) dead_word = bits;
    diagonal[word] = exists ? rows[(tile + row) * kWords + word] : 0;
  }
#pragma unroll
  for (int word = 0; word < kWords; ++word) {
    uint32_t now_dead = __shfl_sync(~0u, dead_word, word);
#pragma unroll
    for (int bit = 0; bit < 32; ++bit) {
      const uint32_t overlapped = __shfl_sync(~0u, diagonal[word], bit);
      now_dead |= now_dead >> bit & 1 ? 0 : overlapped;
    }
    if (32 * word + lane < count) dead[tile + 32 * word + lane] = now_dead >> lane & 1;
#pragma unroll 8
    for (int bit = 0; bit < 32; ++bit) {
      const bool counts = lane > word && lane < kWords && !(now_dead >> bit & 1);
      dead_word |= counts ? rows[(tile + 32 * word + bit) * kWords + lane] : 0;
    }
  }
}

// Lets the boxes that were kept in tile number `step` of a segment suppress those behind the tile.
// A block has as many places as a tile. So only the segment at its first place can have such a tile
// before some of them: any other begins in the block.
template <class C>
__global__ void __launch_bounds__(kBoxThreads)
    suppress_kernel(const AlignedBox<C>* ordered, Segments segments, int64_t step, Judge<C> judge,
                    uint8_t* dead) {
  __shared__ AlignedBox<C> kept[kTile];
  __shared__ C shares[kTile];
  __shared__ int kept_count;
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t first = segments.first(block), end = segments.end(block);
  const int64_t tile = first + step * kTile;
  if (tile + kTile >= end || tile + kTile >= block + kTile) return;

  if (threadIdx.x == 0) kept_count = 0;
  __syncthreads();
  for (int row = threadIdx.x; row < kTile; row += kBoxThreads) {
    if (dead[tile + row]) continue;
    const int at = atomicAdd(&kept_count, 1);
    kept[at] = ordered[tile + row];
    shares[at] = judge.share(kept[at]);
  }
  __syncthreads();

  AlignedBox<C> box[kColumns];
  C share[kColumns];
  bool alive[kColumns], any = false;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int64_t place = block + i * kBoxThreads + threadIdx.x;
    alive[i] = place >= tile + kTile && place < end && !dead[place];
    any |= alive[i];
    if (alive[i]) {
      box[i] = ordered[place];
      share[i] = judge.share(box[i]);
    }
  }
  if (!any) return;
  for (int row = 0; row < kept_count; ++row) {
    const AlignedBox<C> other = kept[row];
    const C other_share = shares[row];
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (alive[i] && judge.suppresses(other, other_share, box[i], share[i])) alive[i] = false;
    }
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int64_t place = block + i * kBoxThreads + threadIdx.x;
    if (place >= tile + kTile && place < end && !alive[i]) dead[place] = 1;
  }
}

// 1 for every kept box by rank; one number more than there are boxes, for their sums.
__global__ void __launch_bounds__(kBoxThreads)
    mark_kept_kernel(const uint8_t* dead, const uint32_t* ranks, int64_t total, uint32_t* kept) {
  const int64_t place = thread_number();
  if (place < total) kept[ranks == nullptr ? place : ranks[place]] = dead[place] ? 0 : 1;
  if (place == total) kept[total] = 0;
}

// kept_before[rank] is the number of kept boxes of all images with lower ranks.
__global__ void __launch_bounds__(kBoxThreads)
    write_kept_kernel(const uint32_t* kept_before, const uint32_t* ranked, int64_t total,
                      int64_t count, View<int64_t, 2> kept, View<int64_t, 1> counts) {
  const int64_t rank = thread_number(), limit = kept.sizes[1];
  if (rank >= total) return;
  const int64_t image = rank / count, first = image * count;
  const int64_t at = kept_before[rank] - kept_before[first];
  if (kept_before[rank + 1] > kept_before[rank] && at < limit) {
    kept(image, at) = ranked[rank] - first;
  }
  if (rank == first) {
    const int64_t all = kept_before[first + count] - kept_before[first];
    counts(image) = all < limit ? all : limit;
  }
}

__global__ void __launch_bounds__(kBoxThreads)
    pad_kernel(View<const int64_t, 1> counts, View<int64_t, 2> kept) {
  const int64_t i = thread_number(), limit = kept.sizes[1];
  if (i >= kept.sizes[0] * limit) return;
  if (i % limit >= counts(i / limit)) kept(i / limit, i % limit) = -1;
}

int bits_of(int64_t number) {
  int bits = 0;
  for (; number > 0; number /= 2) ++bits;
  return bits;
}

template <class T>
class Nms {
 public:
  Nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
      View<const T, 2> scores, View<const int64_t, 2> groups)
      : context_(context),
        judge_{BoxMeasure<C>(rule.plus_one), OverlapThreshold<C>(rule.threshold)},
        boxes_(boxes),
        scores_(scores),
        groups_(groups),
        images_(boxes.sizes[0]),
        count_(boxes.sizes[1]),
        total_(images_ * count_),
        sort_(context, total_),
        scan_(context, total_ + 1) {}

  void run(View<int64_t, 2> kept, View<int64_t, 1> counts) {
    rank();
    if (groups_.defined()) find_segments();
    order();
    suppress();
    write(kept, counts);
  }

 private:
  using C = compute_t<T>;

  template <class U>
  U* allocate(int64_t count) const {
    return context_.scratch->allocate_array<U>(static_cast<size_t>(count));
  }

  template <class... Parameters, class... Arguments>
  void for_each(const char* name, void (*kernel)(Parameters...), int64_t threads,
                const Arguments&... arguments) const {
    launch(name, kernel, divide_up(threads, kBoxThreads), kBoxThreads, context_.stream,
           arguments...);
  }

  // Sorts what is sorted by something else by image as well.
  void sort_by_image() {
    if (images_ == 1) return;
    for_each("image_keys", image_keys_kernel, total_, total_, count_, sort_.pairs);
    sort_.sort(total_, bits_of(images_ - 1));
  }

  void rank() {
    for_each("score_keys", score_keys_kernel<T>, total_, scores_, sort_.pairs);
    sort_.sort(total_, 8 * sizeof(C));
    sort_by_image();
    ranked_ = sort_.pairs.entries;
    if (!groups_.defined()) return;
    uint32_t* const ranked = allocate<uint32_t>(total_);
    check(cudaMemcpyAsync(ranked, ranked_, static_cast<size_t>(total_) * sizeof(uint32_t),
                          cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(context_.stream)),
          "nms");
    ranked_ = ranked;
  }

  void find_segments() {
    for_each("group_keys", group_keys_kernel, total_, groups_, ranked_, sort_.pairs);
    sort_.sort(total_, 64);
    sort_by_image();
    ranks_ = sort_.pairs.entries;
    uint32_t* const begins = allocate<uint32_t>(total_ + 1);
    uint32_t* const starts = allocate<uint32_t>(total_ + 1);
    for_each("mark_segments", mark_segments_kernel, total_ + 1, groups_, ranked_, ranks_, begins);
    scan_.run(begins, total_ + 1);
    for_each("find_starts", find_starts_kernel, total_, begins, total_, starts);
    begins_ = begins;
    starts_ = starts;
  }

  void order() {
    ordered_ = allocate<AlignedBox<C>>(total_);
    for_each("order_boxes", order_boxes_kernel<T>, total_, boxes_, judge_.measure, ranked_, ranks_,
             ordered_);
  }

  void suppress() {
    const Segments segments = {begins_, starts_, count_};
    uint32_t* const rows = allocate<uint32_t>(total_ * kWords);
    dead_ = allocate<uint8_t>(total_);
    check(cudaMemsetAsync(dead_, 0, static_cast<size_t>(total_),
                          static_cast<cudaStream_t>(context_.stream)),
          "nms");
    for_each("find_rows", find_rows_kernel<C>, 32 * total_, ordered_, total_, segments, judge_,
             rows);
    for (int64_t step = 0; step * kTile < count_; ++step) {
      const int64_t stride = step > 0 ? step * kTile : groups_.defined() ? 1 : count_;
      for_each("resolve_tiles", resolve_tiles_kernel, 32 * divide_up(total_, stride), rows, total_,
               segments, step, stride, dead_);
      if ((step + 1) * kTile >= count_) break;
      launch("suppress", suppress_kernel<C>, divide_up(total_, kTile), kBoxThreads, context_.stream,
             ordered_, segments, step, judge_, dead_);
    }
  }

  void write(View<int64_t, 2> kept, View<int64_t, 1> counts) {
    uint32_t* const kept_before = allocate<uint32_t>(total_ + 1);
    for_each("mark_kept", mark_kept_kernel, total_ + 1, dead_, ranks_, total_, kept_before);
    scan_.run(kept_before, total_ + 1);
    for_each("write_kept", write_kept_kernel, total_, kept_before, ranked_, total_, count_, kept,
             counts);
    const View<const int64_t, 1> counted = {counts.data, {counts.sizes[0]}, {counts.strides[0]}};
    for_each("pad", pad_kernel, kept.sizes[0] * kept.sizes[1], counted, kept);
  }

  const Context& context_;
  Judge<C> judge_;
  View<const T, 3> boxes_;
  View<const T, 2> scores_;
  View<const int64_t, 2> groups_;
  int64_t images_, count_, total_;
  RadixSort<uint64_t> sort_;
  PrefixSum scan_;
  const uint32_t* ranked_ = nullptr;  // boxes by image and score
  const uint32_t* ranks_ = nullptr;   // these by image, group and score; null without groups
  const uint32_t* begins_ = nullptr;
  const uint32_t* starts_ = nullptr;
  AlignedBox<C>* ordered_ = nullptr;
  uint8_t* dead_ = nullptr;
};

}  // namespace

template <class T>
void nms(const Context& context, const Suppression& rule, View<const T, 3> boxes,
         View<const T, 2> scores, View<const int64_t, 2> groups, View<int64_t, 2> kept,
         View<int64_t, 1> counts) {
  if (boxes.sizes[0] * boxes.sizes[1] > INT32_MAX) {
    throw std::length_error("nms: more than 2^31 boxes");
  }
  Nms<T>(context, rule, boxes, scores, groups).run(kept, counts);
}

#define DEFORMOPS_INSTANTIATE(T)                                                               \
  template void nms<T>(const Context&, const Suppression&, View<const T, 3>, View<const T, 2>, \
                       View<const int64_t, 2>, View<int64_t, 2>, View<int64_t, 1>);
DEFORMOPS_INSTANTIATE(double)
DEFORMOPS_INSTANTIATE(float)
DEFORMOPS_INSTANTIATE(half)
DEFORMOPS_INSTANTIATE(bfloat16)
#undef DEFORMOPS_INSTANTIATE

}  // namespace deformops::cuda
