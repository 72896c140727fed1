// The gradient of a convolution by its weights on the CPU, compiled once per instruction set (FASTCTC_ISA).
//
//   input ── tiles, to the basis ──> values (places, tiles, inputs)  ┐ products over the tiles
//   grad ── tiles, to the basis ──> grads (places, tiles, outputs)   ┘ ──> sums (places, inputs, outputs)
//   sums of all chunks ── from the basis ──> weights
#include <algorithm>

#include "../workspace.h"
#include "winograd_tiles.h"

namespace fastctc {
namespace cpu {
namespace FASTCTC_ISA {
namespace {

using L = Lanes<float>;
using F = L::F;

// sums[r][c] += sum over k of values[k][r] * grads[k][c], for some inputs and registers of outputs.
template <int inputs_, int registers>
FASTCTC_LANE void accumulate(const float* values, int64_t inputs, const float* grads, int64_t outputs, int64_t count,
                             float* sums) {
  F sum[inputs_][registers];
  FASTCTC_UNROLL for (int r = 0; r < inputs_; ++r) {
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) sum[r][c] = L::load(sums + r * outputs + c * L::N);
  }
  for (int64_t k = 0; k < count; ++k) {
    F g[registers];
    FASTCTC_UNROLL for (int c = 0; c < registers; ++c) g[c] = L::load(grads + k * outputs + c * L::N);
    add_product(sum, values + k * inputs, 1, g);
  }
  store(sum, sums, outputs);
}

// Inputs whose sums fit into registers. They divide kPanel.
constexpr int kInputs = kRegisters == 32 ? 8 : 4;

template <class Vertical, class Horizontal>
class Weights : Tiles<Vertical, Horizontal> {
  using Base = Tiles<Vertical, Horizontal>;
  using Base::kInColumns;
  using Base::kInRows;
  using Base::kOutColumns;
  using Base::kOutRows;
  using Base::kPlaces;
  using Base::p_;
  using typename Base::Place;
  static constexpr int kBlock = 96;  // tiles

 public:
  Weights(const ConvolutionWeightsParams& p) : Base(p.layer), all_(p) {}

  int64_t sums() const { return kPlaces * p_.inputs * p_.outputs; }
  int64_t most_chunks() const { return std::max(int64_t(1), p_.batch * this->tiles() / kBlock); }
  size_t workspace() const { return Memory(nullptr, p_).size; }

  void run(int64_t chunk, void* base) const {
    const Memory memory(base, p_);
    std::fill_n(memory.zeros, std::max(p_.inputs, p_.outputs), 0.0f);
    float* const to = all_.sums + chunk * sums();
    std::fill_n(to, sums(), 0.0f);
    const int64_t tiles = p_.batch * this->tiles();
    const int64_t begin = tiles * chunk / all_.chunks, end = tiles * (chunk + 1) / all_.chunks;
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t count = std::min(end - first, int64_t(kBlock));
      for (int64_t i = 0; i < count; ++i) {
        const Place place = this->place_of(first + i);
        this->enter(place, memory.zeros, memory.values + i * p_.inputs, kBlock * p_.inputs);
        enter_grad(place, memory.zeros, memory.grads + i * p_.outputs);
      }
      for (int k = 0; k < kPlaces; ++k) {
        add_products(memory.values + k * kBlock * p_.inputs, memory.grads + k * kBlock * p_.outputs, count,
                     to + k * p_.inputs * p_.outputs);
      }
    }
  }

  void finish(float* weights) const {
    using D = Lanes<double>;
    constexpr int rows = Vertical::taps, columns = Horizontal::taps;
    for (int64_t k = 0; k < p_.inputs; ++k) {
      for (int64_t o = 0; o < p_.outputs; o += D::N) {
        D::F all[kInRows][kInColumns] = {};
        for (int64_t chunk = 0; chunk < all_.chunks; ++chunk) {
          const float* const from = all_.sums + chunk * sums() + k * p_.outputs + o;
          for (int place = 0; place < kPlaces; ++place) {
            all[place / kInColumns][place % kInColumns] += D::load_converted(from + place * p_.inputs * p_.outputs);
          }
        }
        D::F across[rows][kInColumns], w[rows][columns];
        for (int c = 0; c < kInColumns; ++c) {
          Vertical::weigh_back(&all[0][c], kInColumns, &across[0][c], kInColumns);
        }
        for (int r = 0; r < rows; ++r) Horizontal::weigh_back(across[r], 1, w[r], 1);
        for (int i = 0; i < rows * columns; ++i) {
          for (int lane = 0; lane < D::N; ++lane) {
            weights[((o + lane) * p_.inputs + k) * rows * columns + i] = float(w[i / columns][i % columns][lane]);
          }
        }
      }
    }
  }

 private:
  struct Memory {
    float *values, *grads, *zeros;
    size_t size;

    Memory(void* base, const ConvolutionParams& p) {
      Workspace memory(base);
      values = memory.take<float>(kPlaces * kBlock * p.inputs);
      grads = memory.take<float>(kPlaces * kBlock * p.outputs);
      zeros = memory.take<float>(std::max(p.inputs, p.outputs));
      size = memory.size();
    }
  };

  // Writes the gradient of a tile of outputs, in the basis, place by place.
  void enter_grad(const Place& place, const float* zeros, float* grads) const {
    const float* at[kOutRows][kOutColumns];
    this->find(place, all_.grad, p_.outputs, zeros, at);
    const int64_t plane = kBlock * p_.outputs;
    for (int64_t channel = 0; channel < p_.outputs; channel += L::N) {
      F x[kOutRows][kInColumns];
      FASTCTC_UNROLL for (int r = 0; r < kOutRows; ++r) {
        FASTCTC_UNROLL for (int c = 0; c < kOutColumns; ++c) x[r][c] = L::load(at[r][c] + channel);
        Horizontal::leave_back(x[r]);
      }
      FASTCTC_UNROLL for (int c = 0; c < kInColumns; ++c) {
        F column[kInRows];
        FASTCTC_UNROLL for (int r = 0; r < kOutRows; ++r) column[r] = x[r][c];
        Vertical::leave_back(column);
        FASTCTC_UNROLL for (int r = 0; r < kInRows; ++r) {
          L::store(grads + (r * kInColumns + c) * plane + channel, column[r]);
        }
      }
    }
  }

  void add_products(const float* values, const float* grads, int64_t count, float* sums) const {
    constexpr int kTwo = 2 * L::N;
    for (int64_t c = 0; c < p_.outputs; c += kTwo) {
      for (int64_t k = 0; k < p_.inputs; k += kInputs) {
        float* const to = sums + k * p_.outputs + c;
        if (c + kTwo <= p_.outputs) {
          accumulate<kInputs, 2>(values + k, p_.inputs, grads + c, p_.outputs, count, to);
        } else {
          accumulate<kInputs, 1>(values + k, p_.inputs, grads + c, p_.outputs, count, to);
        }
      }
    }
  }

  const ConvolutionWeightsParams& all_;
};

template <class Function>
auto with_weights(const ConvolutionWeightsParams& p, const Function& f) {
  if (p.layer.kind == Convolution::k1x5) return f(Weights<Single, Basis<3, 5>>(p));
  return f(Weights<Basis<2, 3>, Basis<2, 3>>(p));
}

}  // namespace

int64_t convolution_weights_sums(const ConvolutionWeightsParams& p) {
  return with_weights(p, [](const auto& weights) { return weights.sums(); });
}
int64_t convolution_weights_chunks(const ConvolutionWeightsParams& p) {
  return with_weights(p, [](const auto& weights) { return weights.most_chunks(); });
}
size_t convolution_weights_workspace(const ConvolutionWeightsParams& p) {
  return with_weights(p, [](const auto& weights) { return weights.workspace(); });
}
void convolution_weights(const ConvolutionWeightsParams& p, int64_t chunk, void* workspace) {
  with_weights(p, [&](const auto& weights) { weights.run(chunk, workspace); });
}
void convolution_weights_finish(const ConvolutionWeightsParams& p, float* to) {
  with_weights(p, [&](const auto& weights) { weights.finish(to); });
}

}  // namespace FASTCTC_ISA
}  // namespace cpu
}  // namespace fastctc
