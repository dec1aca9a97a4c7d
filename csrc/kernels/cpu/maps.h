// Maps of rows of channels: what samples are gathered from and scattered to.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/view.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/taps.h"
#include "kernels/cpu/tasks.h"
#include "kernels/cpu/transpose.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// Copies of maps are made for some images at a time: for as many as fit here, for at least one.
constexpr int64_t kMapBytes = int64_t{16} << 20;

// Pieces of one copying task.
constexpr int64_t kCopiedPixels = 256;

DEFORMOPS_INLINE int64_t images_at_a_time(int64_t images, int64_t image_bytes) {
  return larger(1, smaller(images, kMapBytes / larger(image_bytes, 1)));
}

// Images whose pixels are rows of all channels. A tensor that is laid out so (channels_last, no
// half type) is used in place, any other is copied, some images at a time.
template <class T>
class ChannelRows {
 public:
  using C = compute_t<T>;

  ChannelRows(const Context& context, const View<const T, 4>& input)
      : input_(input),
        pixels_(input.sizes[2] * input.sizes[3]),
        channels_(input.sizes[1]),
        in_place_(sizeof(T) == sizeof(C) && (input.strides[1] == 1 || input.sizes[1] == 1)),
        images_(in_place_ ? input.sizes[0]
                          : images_at_a_time(input.sizes[0], pixels_ * channels_ *
                                                                 static_cast<int64_t>(sizeof(C)))),
        copy_(in_place_ ? nullptr : allocate<C>(context, images_ * pixels_ * channels_)),
        zeros_(allocate<C>(context, channels_)) {
    for (int64_t c = 0; c < channels_; ++c) zeros_[c] = C(0);
  }

  int64_t images() const { return images_; }  // at a time

  // Makes images [n, n + count) available.
  void open(const Team& team, int64_t n, int64_t count) {
    first_ = n;
    if (in_place_) return;
    const int64_t parts = divide_up(pixels_, kCopiedPixels);
    team.for_each(count * parts, [&](int64_t task, int64_t) {
      const int64_t image = task / parts, begin = task % parts * kCopiedPixels;
      const int64_t end = smaller(pixels_, begin + kCopiedPixels);
      pixels_to_rows(input_, n + image, begin, end, 0, channels_,
                     copy_ + (image * pixels_ + begin) * channels_, channels_);
    });
  }

  // The map of the open images, from this channel on.
  RowMap<const C> map(int64_t channel) const {
    if (!in_place_) return {copy_ + channel, zeros_, strides()};
    return {reinterpret_cast<const C*>(input_.pointer(first_)) + channel, zeros_, strides()};
  }

  RowStrides strides() const {
    if (in_place_) return {input_.strides[0], input_.strides[2], input_.strides[3]};
    return {pixels_ * channels_, input_.sizes[3] * channels_, channels_};
  }

 private:
  View<const T, 4> input_;
  int64_t pixels_, channels_;
  bool in_place_;
  int64_t images_;
  C* copy_;
  C* zeros_;
  int64_t first_ = 0;
};

// The channels cut into blocks of at most kBlock, each within one group of the weight and one group
// of the offset. Narrower blocks are filled up with zeros, unless all are at most kNarrow wide.
struct ChannelBlocks {
  int64_t channels, group_channels, offset_group_channels;
  int64_t block;    // kBlock of the compute type
  int64_t segment;  // channels that share both groups
  int64_t per_segment;

  ChannelBlocks(int64_t all, int64_t per_group, int64_t per_offset_group, int64_t block_channels)
      : channels(all),
        group_channels(larger(per_group, 1)),
        offset_group_channels(larger(per_offset_group, 1)),
        block(block_channels) {
    int64_t a = group_channels, b = offset_group_channels;
    while (b != 0) {
      const int64_t rest = a % b;
      a = b, b = rest;
    }
    segment = a;
    per_segment = divide_up(segment, block);
  }

  DEFORMOPS_INLINE int64_t count() const { return channels / segment * per_segment; }
  DEFORMOPS_INLINE int64_t channel(int64_t b) const {
    return b / per_segment * segment + b % per_segment * block;
  }
  DEFORMOPS_INLINE int64_t width(int64_t b) const {
    return smaller(block, segment - b % per_segment * block);
  }
  // With the zeros.
  DEFORMOPS_INLINE int64_t padded_width() const { return segment <= kNarrow ? segment : block; }
  DEFORMOPS_INLINE int64_t group(int64_t b) const { return channel(b) / group_channels; }
  DEFORMOPS_INLINE int64_t offset_group(int64_t b) const {
    return channel(b) / offset_group_channels;
  }
  DEFORMOPS_INLINE int64_t per_offset_group() const {
    return channels > 0 ? offset_group_channels / segment * per_segment : 0;
  }
};

// Images cut into blocks of channels, [block][image][1 + pixels][row]: whoever works on a block
// has all of it close together and to himself. The row before the first pixel of an image stands
// for all pixels outside: zeros to read, or sums that nobody reads.
template <class C>
class BlockMaps {
 public:
  BlockMaps() = default;
  BlockMaps(const Context& context, const ChannelBlocks& blocks, int64_t images, int64_t height,
            int64_t width)
      : row_(blocks.padded_width()),
        pixels_(height * width),
        width_(width),
        images_(images),
        data_(allocate<C>(context, blocks.count() * images * image_size())) {}

  bool defined() const { return data_ != nullptr; }

  static int64_t image_bytes(const ChannelBlocks& blocks, int64_t pixels) {
    return blocks.count() * (1 + pixels) * blocks.padded_width() * static_cast<int64_t>(sizeof(C));
  }

  RowMap<C> map(int64_t b) const {
    C* const first = block(b);
    return {first, first - row_, strides()};
  }

  RowMap<const C> read_only_map(int64_t b) const {
    const C* const first = block(b);
    return {first, first - row_, strides()};
  }

  RowStrides strides() const { return {image_size(), width_ * row_, row_}; }

  void fill_with_zeros(int64_t b, int64_t images) const {
    memset(block(b) - row_, 0, static_cast<size_t>(images * image_size()) * sizeof(C));
  }

  template <class T>
  void copy_from(const Team& team, const ChannelBlocks& blocks, const View<const T, 4>& input,
                 int64_t first, int64_t count) const {
    for_each_part(team, blocks, count, [&](int64_t b, int64_t image, int64_t begin, int64_t end) {
      C* rows = block(b) + image * image_size() + begin * row_;
      const int64_t channels = blocks.width(b);
      if (channels < row_) {
        memset(rows, 0, static_cast<size_t>((end - begin) * row_) * sizeof(C));
      }
      if (begin == 0) memset(rows - row_, 0, static_cast<size_t>(row_) * sizeof(C));
      pixels_to_rows(input, first + image, begin, end, blocks.channel(b), channels, rows, row_);
    });
  }

  template <class T>
  void copy_to(const Team& team, const ChannelBlocks& blocks, const View<T, 4>& output,
               int64_t first, int64_t count) const {
    for_each_part(team, blocks, count, [&](int64_t b, int64_t image, int64_t begin, int64_t end) {
      rows_to_pixels(block(b) + image * image_size() + begin * row_, row_, output, first + image,
                     begin, end, blocks.channel(b), blocks.width(b));
    });
  }

 private:
  int64_t image_size() const { return (1 + pixels_) * row_; }

  C* block(int64_t b) const { return data_ + b * images_ * image_size() + row_; }

  template <class Body>
  void for_each_part(const Team& team, const ChannelBlocks& blocks, int64_t images,
                     const Body& body) const {
    constexpr int64_t kPart = 8 * kCopiedPixels;
    const int64_t parts = larger(1, divide_up(pixels_, kPart));  // an empty map has its first row
    team.for_each(blocks.count() * images * parts, [&](int64_t task, int64_t) {
      const int64_t begin = task % parts * kPart;
      body(task / parts / images, task / parts % images, begin, smaller(pixels_, begin + kPart));
    });
  }

  int64_t row_ = 0, pixels_ = 0, width_ = 0, images_ = 0;
  C* data_ = nullptr;
};

}  // namespace deformops::cpu::DEFORMOPS_ISA
