// Winograd convolution on the CPU, compiled once per instruction set (FASTCTC_ISA).
//
//   input ── tiles, to the basis ──> values (places, tiles, inputs)
//         ── product with the weights of each place ──> sums (places, tiles, outputs)
//         ── from the basis, bias, max(0, x), input added, pooled ──> output
//
// Each output is a sum over the inputs in one order, so neither the batch nor the threads change its bits.
#include "../convolution.h"

#include <algorithm>

#include "../workspace.h"
#include "lanes.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using L = Lanes<float>;
using F = L::F;

// Polynomials by their values at 0, at pairs of points +-a, and at infinity. A convolution of `taps` is a product of
// these values, place by place.
template <int pairs_, int taps_>
struct Basis {
  static constexpr int pairs = pairs_, taps = taps_;
  static constexpr int places = 2 * pairs + 2, outputs = places - taps + 1;
  static constexpr float point[3] = {1, 2, 0.5f};

  // Row b: the coefficients of the product of (y - a^2) over all pairs but b; the last row: over all pairs.
  struct Products {
    float row[pairs + 1][pairs + 1];
  };
  static constexpr Products make() {
    Products products{};
    for (int without = 0; without <= pairs; ++without) {
      float* const c = products.row[without];
      c[0] = 1;
      for (int b = 0; b < pairs; ++b) {
        if (b == without) continue;
        for (int k = pairs; k >= 0; --k) c[k] = (k > 0 ? c[k - 1] : 0) - c[k] * point[b] * point[b];
      }
    }
    return products;
  }
  static constexpr Products products = make();

  FASTCTC_LANE void enter(F* x) {
    F y[places] = {};
    FASTCTC_UNROLL for (int i = 0; i <= pairs; ++i) {
      const float c = products.row[pairs][i];
      y[0] = i == 0 ? c * x[0] : c * x[2 * i] + y[0];
      y[places - 1] = i == 0 ? c * x[1] : c * x[2 * i + 1] + y[places - 1];
    }
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      F even{}, odd{};
      FASTCTC_UNROLL for (int i = 0; i < pairs; ++i) {
        const float c = products.row[b][i];
        even = i == 0 ? c * x[2] : c * x[2 * i + 2] + even;
        odd = i == 0 ? c * x[1] : c * x[2 * i + 1] + odd;
      }
      y[2 * b + 1] = even + point[b] * odd;
      y[2 * b + 2] = even - point[b] * odd;
    }
    FASTCTC_UNROLL for (int i = 0; i < places; ++i) x[i] = y[i];
  }
  FASTCTC_LANE void leave(F* x) {
    F even[pairs], odd[pairs], y[outputs];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) {
      even[b] = x[2 * b + 1] + x[2 * b + 2];
      odd[b] = x[2 * b + 1] - x[2 * b + 2];
    }
    float power[pairs];
    FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) power[b] = 1;
    FASTCTC_UNROLL for (int i = 0; i < outputs; ++i) {
      F sum = i == 0 ? x[0] + even[0] : power[0] * (i % 2 ? odd : even)[0];
      FASTCTC_UNROLL for (int b = 1; b < pairs; ++b) sum = power[b] * (i % 2 ? odd : even)[b] + sum;
      y[i] = i == outputs - 1 ? sum + x[places - 1] : sum;
      FASTCTC_UNROLL for (int b = 0; b < pairs; ++b) power[b] *= point[b];
    }
    FASTCTC_UNROLL for (int i = 0; i < outputs; ++i) x[i] = y[i];
  }
  // The weight of a tap at a place.
  static double weight(int place, int tap) {
    if (place == places - 1) return tap == taps - 1;
    const auto at = [](int k) { return k == 0 ? 0.0 : double(point[(k - 1) / 2]) * (k % 2 ? 1 : -1); };
    double weight = 1;
    for (int i = 0; i < tap; ++i) weight *= at(place);
    for (int k = 0; k < places - 1; ++k) weight /= k == place ? 1 : at(place) - at(k);
    return weight;
  }
};
// A single tap is a product already.
struct Single {
  static constexpr int places = 1, outputs = 1, taps = 1;
  FASTCTC_LANE void enter(F*) {}
  FASTCTC_LANE void leave(F*) {}
  static double weight(int, int) { return 1; }
};

template <class Vertical_, class Horizontal_>
struct Tile {
  using Vertical = Vertical_;
  using Horizontal = Horizontal_;
  static constexpr int places = Vertical::places * Horizontal::places;
};
template <class Function>
auto with_tile(Convolution kind, const Function& f) {
  if (kind == Convolution::k1x1) return f(Tile<Single, Single>());
  if (kind == Convolution::k1x5) return f(Tile<Single, Basis<3, 5>>());
  return f(Tile<Basis<2, 3>, Basis<2, 3>>());
}

constexpr int64_t kAhead = 16 * kPanel;  // weights that are fetched before they are needed

// sums[row][column] = sum over k of values[row][k] * weights[k][column], for some rows and registers of columns.
template <int rows, int registers>
FASTCTC_LANE void multiply(const float* values, const float* weights, int64_t inputs, float* sums, int64_t outputs) {
  F sum[rows][registers] = {};
  for (int64_t k = 0; k < inputs; ++k) {
    F w[registers];
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) {
      const float* const from = weights + c * L::N / kPanel * inputs * kPanel + k * kPanel + c * L::N % kPanel;
      w[c] = L::load(from);
      if (c * L::N % kPanel == 0) __builtin_prefetch(from + kAhead);
    }
    FASTCTC_UNROLL for (int r = 0; r < rows; ++r) {
      const float x = values[r * inputs + k];
      FASTCTC_UNROLL for (int c = 0; c < registers; ++c) sum[r][c] = x * w[c] + sum[r][c];
    }
  }
  FASTCTC_UNROLL for (int r = 0; r < rows; ++r) {
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) L::store(sums + r * outputs + c * L::N, sum[r][c]);
  }
}

// Rows whose sums fit into registers: 32, or 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 12;
#else
constexpr int kRows = 6;
#endif

template <int registers>
void multiply_rows(const float* values, const float* weights, int64_t inputs, float* sums, int64_t outputs,
                   int64_t rows) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    multiply<kRows, registers>(values + r * inputs, weights, inputs, sums + r * outputs, outputs);
  }
  for (; r + 4 <= rows; r += 4) {
    multiply<4, registers>(values + r * inputs, weights, inputs, sums + r * outputs, outputs);
  }
  for (; r < rows; ++r) {
    multiply<1, registers>(values + r * inputs, weights, inputs, sums + r * outputs, outputs);
  }
}

template <class Shape>
class Layer {
  using Vertical = typename Shape::Vertical;
  using Horizontal = typename Shape::Horizontal;
  static constexpr int kOutRows = Vertical::outputs, kOutColumns = Horizontal::outputs;
  static constexpr int kInRows = Vertical::places, kInColumns = Horizontal::places;

 public:
  static constexpr int kBlock = Shape::places == 1 ? 8 * kRows : Shape::places == 8 ? 4 * kRows : 2 * kRows;  // tiles

  explicit Layer(const ConvolutionParams& p)
      : p_(p),
        tile_rows_((p.rows + kOutRows - 1) / kOutRows),
        // With a dilation, every so many columns are a row of tiles of their own.
        tile_columns_((p.columns + kOutColumns * p.dilation - 1) / (kOutColumns * p.dilation) * p.dilation) {}

  int64_t tiles() const { return tile_rows_ * tile_columns_; }

  size_t workspace(void* base, float** values, float** sums, float** zeros) const {
    Workspace memory(base);
    *values = memory.take<float>(Shape::places * kBlock * p_.inputs);
    *sums = memory.take<float>(Shape::places * kBlock * p_.outputs);
    *zeros = memory.take<float>(p_.inputs);
    return memory.size();
  }

  void run(int64_t begin, int64_t end, void* base) const {
    float *values, *sums, *zeros;
    workspace(base, &values, &sums, &zeros);
    std::fill_n(zeros, p_.inputs, 0.0f);
    int64_t waiting[kBlock], count = 0;
    for (int64_t tile = begin; tile < end; ++tile) {
      const Place place = place_of(tile);
      if (place.column < p_.widths[place.sample]) {
        enter(place, zeros, values + count * p_.inputs);
        waiting[count++] = tile;
      } else {
        clear(place);
      }
      if (count == kBlock || (tile + 1 == end && count > 0)) {
        multiply_places(values, sums, count);
        for (int64_t i = 0; i < count; ++i) leave(place_of(waiting[i]), sums + i * p_.outputs);
        count = 0;
      }
    }
  }

 private:
  struct Place {
    int64_t sample, row, column;  // of the first output
  };

  Place place_of(int64_t tile) const {
    const int64_t in_row = tile % tile_columns_, row = tile / tile_columns_;
    return {row / tile_rows_, row % tile_rows_ * kOutRows,
            in_row / p_.dilation * kOutColumns * p_.dilation + in_row % p_.dilation};
  }

  void enter(const Place& place, const float* zeros, float* values) const {
    const float* at[kInRows][kInColumns];
    for (int r = 0; r < kInRows; ++r) {
      for (int c = 0; c < kInColumns; ++c) {
        const int64_t row = place.row + r - Vertical::taps / 2;
        const int64_t column = place.column + (c - Horizontal::taps / 2) * p_.dilation;
        const bool inside = row >= 0 && row < p_.rows && column >= 0 && column < p_.columns;
        at[r][c] = inside ? p_.input + ((place.sample * p_.rows + row) * p_.columns + column) * p_.inputs : zeros;
      }
    }
    const int64_t plane = kBlock * p_.inputs;
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

  void multiply_places(const float* values, float* sums, int64_t rows) const {
    constexpr int64_t kTwo = 2 * L::N;
    for (int k = 0; k < Shape::places; ++k) {
      const float* const v = values + k * kBlock * p_.inputs;
      float* const s = sums + k * kBlock * p_.outputs;
      const float* const w = p_.weights + k * p_.inputs * p_.outputs;
      for (int64_t c = 0; c < p_.outputs; c += kTwo) {
        const float* const panel = w + c / kPanel * kPanel * p_.inputs + c % kPanel;
        if (c + kTwo <= p_.outputs) {
          multiply_rows<2>(v, panel, p_.inputs, s + c, p_.outputs, rows);
        } else {
          multiply_rows<1>(v, panel, p_.inputs, s + c, p_.outputs, rows);
        }
      }
    }
  }

  void leave(const Place& place, const float* sums) const {
    const int64_t plane = kBlock * p_.outputs;
    for (int64_t channel = 0; channel < p_.outputs; channel += L::N) {
      F x[kInRows][kInColumns];
      FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) {
        FASTCTC_UNROLL for (int c = 0; c < kInColumns; ++c) {
          x[r][c] = L::load(sums + (r * kInColumns + c) * plane + channel);
        }
        Horizontal::leave(x[r]);
      }
      F y[kOutRows][kOutColumns];
      const F bias = L::load(p_.bias + channel);
      FASTCTC_UNROLL for (int c = 0; c < kOutColumns; ++c) {
        F column[kInRows];
        FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) column[r] = x[r][c];
        Vertical::leave(column);
        FASTCTC_UNROLL for (int r = 0; r < kOutRows; ++r) {
          const F sum = column[r] + bias;
          y[r][c] = p_.rectifies ? L::max(L::set(0), sum) : sum;
        }
      }
      put(place, channel, y);
    }
  }

  void put(const Place& place, int64_t channel, const F (&y)[kOutRows][kOutColumns]) const {
    if constexpr (kOutRows > 1) {
      if (p_.pool_columns == 2) return put_pooled<2, 2>(place, channel, y);
      if (p_.pool_rows == 2) return put_pooled<2, 1>(place, channel, y);
    }
    put_pooled<1, 1>(place, channel, y);
  }
  // Writes the maximum of each window that is whole and in the image. Columns of padding are zero.
  template <int pool_rows, int pool_columns>
  void put_pooled(const Place& place, int64_t channel, const F (&y)[kOutRows][kOutColumns]) const {
    const int64_t width = p_.widths[place.sample], columns = p_.columns / pool_columns, rows = p_.rows / pool_rows;
    FASTCTC_UNROLL for (int r = 0; r < kOutRows; r += pool_rows) {
      FASTCTC_UNROLL for (int c = 0; c < kOutColumns; c += pool_columns) {
        const int64_t row = (place.row + r) / pool_rows, column = (place.column + c * p_.dilation) / pool_columns;
        if (row >= rows || column >= columns) continue;
        F top{};
        FASTCTC_UNROLL for (int i = 0; i < pool_rows; ++i) {
          FASTCTC_UNROLL for (int k = 0; k < pool_columns; ++k) {
            const F value = place.column + (c + k) * p_.dilation < width ? y[r + i][c + k] : F{};
            top = i + k == 0 ? value : L::max(top, value);
          }
        }
        const int64_t at = ((place.sample * rows + row) * columns + column) * p_.outputs + channel;
        L::store(p_.output + at, p_.adds_input ? L::load(p_.input + at) + top : top);
      }
    }
  }
  void clear(const Place& place) const {
    const F nothing[kOutRows][kOutColumns] = {};
    for (int64_t channel = 0; channel < p_.outputs; channel += L::N) put(place, channel, nothing);
  }

  const ConvolutionParams& p_;
  const int64_t tile_rows_, tile_columns_;
};

}  // namespace

int64_t convolution_places(Convolution kind) {
  return with_tile(kind, [](auto tile) { return int64_t(decltype(tile)::places); });
}
void pack_convolution(const float* weights, Convolution kind, int64_t outputs, int64_t inputs, float* packed) {
  with_tile(kind, [&](auto tile) {
    using Vertical = typename decltype(tile)::Vertical;
    using Horizontal = typename decltype(tile)::Horizontal;
    constexpr int taps = Vertical::taps * Horizontal::taps;
    for (int place = 0; place < decltype(tile)::places; ++place) {
      double factors[taps];
      for (int i = 0; i < taps; ++i) {
        factors[i] = Vertical::weight(place / Horizontal::places, i / Horizontal::taps) *
                     Horizontal::weight(place % Horizontal::places, i % Horizontal::taps);
      }
      for (int64_t o = 0; o < outputs; ++o) {
        float* const to = packed + ((place * outputs + o / kPanel * kPanel) * inputs + o % kPanel);
        for (int64_t k = 0; k < inputs; ++k) {
          const float* const w = weights + (o * inputs + k) * taps;
          double sum = 0;
          for (int i = 0; i < taps; ++i) sum += factors[i] * w[i];
          to[k * kPanel] = float(sum);
        }
      }
    }
  });
}
int64_t convolution_tiles(const ConvolutionParams& p) {
  return with_tile(p.kind, [&](auto tile) { return Layer<decltype(tile)>(p).tiles(); });
}
int64_t convolution_block(const ConvolutionParams& p) {
  return with_tile(p.kind, [&](auto tile) { return int64_t(Layer<decltype(tile)>::kBlock); });
}
size_t convolution_workspace(const ConvolutionParams& p) {
  float *values, *sums, *zeros;
  return with_tile(p.kind,
                   [&](auto tile) { return Layer<decltype(tile)>(p).workspace(nullptr, &values, &sums, &zeros); });
}
void convolution(const ConvolutionParams& p, int64_t begin, int64_t end, void* workspace) {
  with_tile(p.kind, [&](auto tile) { Layer<decltype(tile)>(p).run(begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
