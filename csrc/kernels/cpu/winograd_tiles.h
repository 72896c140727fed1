// The tiles of a layer of Winograd's convolution.
#pragma once

#include "../convolution.h"
#include "winograd_basis.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {

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
        // With a dilation, every so many columns are a row of tiles of their own.
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

  // Writes what a tile sees, in the basis, place by place, which are `plane` numbers apart.
  void enter(const Place& place, const float* zeros, float* values, int64_t plane) const {
    const float* at[kInRows][kInColumns];
    for (int r = 0; r < kInRows; ++r) {
      for (int c = 0; c < kInColumns; ++c) {
        const int64_t row = place.row + r - Vertical::taps / 2;
        const int64_t column = place.column + (c - Horizontal::taps / 2) * p_.dilation;
        const bool inside = row >= 0 && row < p_.rows && column >= 0 && column < p_.columns;
        at[r][c] = inside ? p_.input + ((place.sample * p_.rows + row) * p_.columns + column) * p_.inputs : zeros;
      }
    }
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
