// How the output pixels of some images are cut into tiles. Pixels are counted through from the
// first image to the last, so that small maps fill a tile together.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector.h"

namespace deformops::cpu::DEFORMOPS_ISA {

// The size of tiles of at most `most` pixels of which every thread gets the same number. Of 17
// tiles one of 2 threads gets 9 and the other waits for the last of them.
DEFORMOPS_INLINE int64_t even_tile_size(int64_t pixels, int64_t most, int64_t threads) {
  return divide_up(pixels, larger(1, round_up(divide_up(pixels, most), threads)));
}

struct Tiles {
  int64_t first_image;
  int64_t image_pixels;
  int64_t pixels;  // of all images together
  int64_t size;

  DEFORMOPS_INLINE int64_t count() const { return divide_up(pixels, size); }
  DEFORMOPS_INLINE int64_t begin(int64_t tile) const { return tile * size; }
  DEFORMOPS_INLINE int64_t rows(int64_t tile) const { return smaller(size, pixels - begin(tile)); }

  // Calls body(n, begin, end, row): pixels [begin, end) of image n are the tile's rows from `row`.
  template <class Body>
  DEFORMOPS_INLINE void for_each_image(int64_t tile, const Body& body) const {
    const int64_t first = begin(tile), last = first + rows(tile);
    for (int64_t q = first; q < last;) {
      const int64_t image = q / image_pixels;
      const int64_t stop = smaller(last, (image + 1) * image_pixels);
      body(first_image + image, q - image * image_pixels, stop - image * image_pixels, q - first);
      q = stop;
    }
  }
};

}  // namespace deformops::cpu::DEFORMOPS_ISA
