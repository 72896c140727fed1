// The tiles of a layer of Winograd's convolution.
#pragma once

#include "../convolution.h"
#include "winograd_basis.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

// Registers of the instruction set.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// sum[r][c] += values[r * step] * w[c]
template <int rows, int registers>
FASTCTC_LANE void add_product(Lanes<float>::F (&sum)[rows][registers], const float* values, int64_t step,
                              const Lanes<float>::F (&w)[registers]) {
  FASTCTC_UNROLL for (int r = 0; r < rows; ++r) {
    const float x = values[r * step];
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) sum[r][c] = x * w[c] + sum[r][c];
  }
}
template <int rows, int registers>
FASTCTC_LANE void store(const Lanes<float>::F (&sum)[rows][registers], float* to, int64_t row_length) {
  using L = Lanes<float>;
  FASTCTC_UNROLL for (int r = 0; r < rows; ++r) {
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) L::store(to + r * row_length + c * L::N, sum[r][c]);
  }
}

// By the bases of its rows and columns.
template <class Vertical, class Horizontal>
class Tiles {
 public:
  using L = Lanes<float>;
  using F = L::F;
  static constexpr int kOutRows = Vertical::outputs, kOutColumns = Horizontal::outputs;
  static constexpr int kInRows = Vertical::places, kInColumns = Horizontal::places;
  static constexpr int kPlaces = kInRows * kInColumns;

  explicit Tiles(const ConvolutionParams& p)
      : p_(p),
        tile_rows_((p.rows + kOutRows - 1) / kOutRows),
        // With a dilation d, the columns of each remainder modulo d have tiles of their own.
        tile_columns_((p.columns + kOutColumns * p.dilation - 1) / (kOutColumns * p.dilation) * p.dilation) {}

  int64_t tiles() const { return tile_rows_ * tile_columns_; }

  struct Place {
    int64_t sample, row, column;  // of the first output
  };

  Place place_of(int64_t tile) const {
    const int64_t in_row = tile % tile_columns_, row = tile / tile_columns_;
    return {row / tile_rows_, row % tile_rows_ * kOutRows,
            in_row / p_.dilation * kOutColumns * p_.dilation + in_row % p_.dilation};
  }

  // Finds the pixels from `first` on in images (N, H, W, channels); `zeros` stands for those outside.
  template <int rows, int columns>
  void find(const Place& first, const float* images, int64_t channels, const float* zeros,
            const float* (&at)[rows][columns]) const {
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < columns; ++c) {
        const int64_t row = first.row + r, column = first.column + c * p_.dilation;
        const bool inside = row >= 0 && row < p_.rows && column >= 0 && column < p_.columns;
        at[r][c] = inside ? images + ((first.sample * p_.rows + row) * p_.columns + column) * channels : zeros;
      }
    }
  }

  // Writes what a tile sees, in the basis, place by place, which are `plane` numbers apart.
  void enter(const Place& place, const float* zeros, float* values, int64_t plane) const {
    const float* at[kInRows][kInColumns];
    find({place.sample, place.row - Vertical::taps / 2, place.column - Horizontal::taps / 2 * p_.dilation}, p_.input,
         p_.inputs, zeros, at);
    for (int64_t channel = 0; channel < p_.inputs; channel += L::N) {
      F x[kInRows][kInColumns];
      FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) {
        FASTCTC_UNROLL for (int c = 0; c < kInColumns; ++c) x[r][c] = L::load(at[r][c] + channel);
        Horizontal::enter(x[r]);
      }
      FASTCTC_UNROLL for (int c = 0; c < kInColumns; ++c) {
        F column[kInRows];
        FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) column[r] = x[r][c];
        Vertical::enter(column);
        FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) {
          L::store(values + (r * kInColumns + c) * plane + channel, column[r]);
        }
      }
    }
  }

 protected:
  const ConvolutionParams& p_;

 private:
  const int64_t tile_rows_, tile_columns_;
};

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
