// Convolution on the CPU, compiled once per instruction set (FASTCTC_ISA).
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
#include "winograd_tiles.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using L = Lanes<float>;
using F = L::F;

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
    add_product(sum, values + k, inputs, w);
  }
  store(sum, sums, outputs);
}

// Rows whose sums fit into registers.
constexpr int kRows = kRegisters == 32 ? 12 : 6;

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

// A layer by the bases of its rows and columns.
template <class Vertical, class Horizontal>
class Winograd : public Tiles<Vertical, Horizontal> {
  using Base = Tiles<Vertical, Horizontal>;
  using Base::kInColumns;
  using Base::kInRows;
  using Base::kOutColumns;
  using Base::kOutRows;
  using Base::p_;
  using typename Base::Place;

 public:
  using Base::kPlaces;
  static constexpr int kBlock = kPlaces == 1 ? 8 * kRows : kPlaces == 8 ? 4 * kRows : 2 * kRows;  // tiles

  static void pack(const float* weights, int64_t outputs, int64_t inputs, float* packed) {
    using D = Lanes<double>;
    constexpr int rows = Vertical::taps, columns = Horizontal::taps;
    for (int64_t o = 0; o < outputs; o += D::N) {
      for (int64_t k = 0; k < inputs; ++k) {
        D::F w[rows][columns];
        for (int r = 0; r < rows; ++r) {
          for (int c = 0; c < columns; ++c) {
            for (int lane = 0; lane < D::N; ++lane) {
              w[r][c][lane] = weights[(((o + lane) * inputs + k) * rows + r) * columns + c];
            }
          }
        }
        D::F across[rows][kInColumns];
        for (int r = 0; r < rows; ++r) Horizontal::weigh(w[r], 1, across[r], 1);
        D::F all[kInRows][kInColumns];
        for (int c = 0; c < kInColumns; ++c) Vertical::weigh(&across[0][c], kInColumns, &all[0][c], kInColumns);
        float* const to = packed + o / kPanel * kPanel * inputs + k * kPanel + o % kPanel;
        for (int place = 0; place < kPlaces; ++place) {
          D::store_converted(to + place * outputs * inputs, all[place / kInColumns][place % kInColumns]);
        }
      }
    }
  }

  explicit Winograd(const ConvolutionParams& p) : Base(p) {}

  size_t workspace() const { return Memory(nullptr, p_).size; }

  void run(int64_t begin, int64_t end, void* base) const {
    const Memory memory(base, p_);
    std::fill_n(memory.zeros, p_.inputs, 0.0f);
    int64_t waiting[kBlock], count = 0;
    for (int64_t tile = begin; tile < end; ++tile) {
      const Place place = this->place_of(tile);
      if (place.column < p_.widths[place.sample]) {
        this->enter(place, memory.zeros, memory.values + count * p_.inputs, kBlock * p_.inputs);
        waiting[count++] = tile;
      } else {
        clear(place);
      }
      if (count == kBlock || (tile + 1 == end && count > 0)) {
        multiply_places(memory.values, memory.sums, count);
        for (int64_t i = 0; i < count; ++i) leave(this->place_of(waiting[i]), memory.sums + i * p_.outputs);
        count = 0;
      }
    }
  }

 private:
  struct Memory {
    float *values, *sums, *zeros;
    size_t size;

    Memory(void* base, const ConvolutionParams& p) {
      Workspace memory(base);
      values = memory.take<float>(kPlaces * kBlock * p.inputs);
      sums = memory.take<float>(kPlaces * kBlock * p.outputs);
      zeros = memory.take<float>(p.inputs);
      size = memory.size();
    }
  };

  void multiply_places(const float* values, float* sums, int64_t rows) const {
    constexpr int64_t kTwo = 2 * L::N;
    for (int k = 0; k < kPlaces; ++k) {
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
};

// The first layer, of one input, by direct sums. A tile is a row of outputs after pooling.
template <int taps, int stride>
class First {
 public:
  static constexpr int kPlaces = taps * taps, kBlock = 1;

  static void pack(const float* weights, int64_t outputs, int64_t, float* packed) {
    for (int64_t o = 0; o < outputs; ++o) {
      for (int tap = 0; tap < kPlaces; ++tap) packed[tap * outputs + o] = weights[o * kPlaces + tap];
    }
  }

  explicit First(const ConvolutionParams& p)
      : p_(p), rows_((p.rows + stride - 1) / stride), columns_((p.columns + stride - 1) / stride) {}

  int64_t tiles() const { return rows_ / p_.pool_rows; }
  size_t workspace() const { return size_t(kMostRows * padded()) * sizeof(float); }

  void run(int64_t begin, int64_t end, void* base) const {
    auto* const lines = static_cast<float*>(base);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t sample = tile / tiles(), row = tile % tiles();
      copy_lines(sample, row * p_.pool_rows * stride - kEdge, lines);
      if (p_.pool_columns == 2) {
        run_row<2, 2>(sample, row, lines);
      } else if (p_.pool_rows == 2) {
        run_row<2, 1>(sample, row, lines);
      } else {
        run_row<1, 1>(sample, row, lines);
      }
    }
  }

 private:
  static constexpr int kEdge = taps / 2;
  static constexpr int kMostRows = taps + stride;  // of the input, that two rows of outputs see

  int64_t padded() const { return (columns_ + 1) * stride + 2 * kEdge; }

  // The rows from `first` on that a tile sees, with zeros around the image.
  void copy_lines(int64_t sample, int64_t first, float* lines) const {
    for (int r = 0; r < kMostRows; ++r) {
      float* const line = lines + r * padded();
      std::fill_n(line, padded(), 0.0f);
      const int64_t row = first + r;
      if (row < 0 || row >= p_.rows) continue;
      std::copy_n(p_.input + (sample * p_.rows + row) * p_.columns, p_.columns, line + kEdge);
    }
  }

  template <int pool_rows, int pool_columns>
  void run_row(int64_t sample, int64_t row, const float* lines) const {
    const int64_t width = p_.widths[sample], columns = columns_ / pool_columns;
    float* const output = p_.output + (sample * tiles() + row) * columns * p_.outputs;
    for (int64_t column = 0; column < columns; ++column) {
      float* const to = output + column * p_.outputs;
      if (column * pool_columns >= width) {
        std::fill_n(to, p_.outputs, 0.0f);
        continue;
      }
      const bool cuts = column * pool_columns + pool_columns > width;
      const float* const from = lines + column * pool_columns * stride;
      int64_t c = 0;
      for (; c + 2 * L::N <= p_.outputs; c += 2 * L::N) window<pool_rows, pool_columns, 2>(from, c, cuts, to);
      if (c < p_.outputs) window<pool_rows, pool_columns, 1>(from, c, cuts, to);
    }
  }

  template <int pool_rows, int pool_columns, int registers>
  void window(const float* from, int64_t channel, bool cuts, float* to) const {
    F sum[pool_rows][pool_columns][registers] = {};
    for (int tap = 0; tap < kPlaces; ++tap) {
      F w[registers];
      FASTCTC_UNROLL for (int c = 0; c < registers; ++c) {
        w[c] = L::load(p_.weights + tap * p_.outputs + channel + c * L::N);
      }
      const float* const at = from + tap / taps * padded() + tap % taps;
      FASTCTC_UNROLL for (int i = 0; i < pool_rows; ++i) {
        FASTCTC_UNROLL for (int k = 0; k < pool_columns; ++k) {
          const float x = at[i * stride * padded() + k * stride];
          FASTCTC_UNROLL for (int c = 0; c < registers; ++c) sum[i][k][c] = x * w[c] + sum[i][k][c];
        }
      }
    }
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) {
      const F bias = L::load(p_.bias + channel + c * L::N);
      F top{};
      FASTCTC_UNROLL for (int i = 0; i < pool_rows; ++i) {
        FASTCTC_UNROLL for (int k = 0; k < pool_columns; ++k) {
          F value = sum[i][k][c] + bias;
          if (p_.rectifies) value = L::max(L::set(0), value);
          if (k > 0 && cuts) value = F{};
          top = i + k == 0 ? value : L::max(top, value);
        }
      }
      L::store(to + channel + c * L::N, top);
    }
  }

  const ConvolutionParams& p_;
  const int64_t rows_, columns_;  // before pooling
};

template <class T>
struct Type {
  using type = T;
};
template <class Function>
auto with_layer(Convolution kind, const Function& f) {
  switch (kind) {
    case Convolution::kFirst3x3:
      return f(Type<First<3, 1>>());
    case Convolution::kFirst5x5:
      return f(Type<First<5, 2>>());
    case Convolution::k1x1:
      return f(Type<Winograd<Single, Single>>());
    case Convolution::k1x5:
      return f(Type<Winograd<Single, Basis<3, 5>>>());
    default:
      return f(Type<Winograd<Basis<2, 3>, Basis<2, 3>>>());
  }
}

}  // namespace

int64_t convolution_places(Convolution kind) {
  return with_layer(kind, [](auto layer) { return int64_t(decltype(layer)::type::kPlaces); });
}
void pack_convolution(const float* weights, Convolution kind, int64_t outputs, int64_t inputs, float* packed) {
  with_layer(kind, [&](auto layer) { decltype(layer)::type::pack(weights, outputs, inputs, packed); });
}
int64_t convolution_tiles(const ConvolutionParams& p) {
  return with_layer(p.kind, [&](auto layer) { return typename decltype(layer)::type(p).tiles(); });
}
int64_t convolution_block(const ConvolutionParams& p) {
  return with_layer(p.kind, [&](auto layer) { return int64_t(decltype(layer)::type::kBlock); });
}
size_t convolution_workspace(const ConvolutionParams& p) {
  return with_layer(p.kind, [&](auto layer) { return typename decltype(layer)::type(p).workspace(); });
}
void convolution(const ConvolutionParams& p, int64_t begin, int64_t end, void* workspace) {
  with_layer(p.kind, [&](auto layer) { typename decltype(layer)::type(p).run(begin, end, workspace); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
