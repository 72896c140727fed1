// Rows of C classes, each by a team of threads: vectorized access, the softmax statistics of logits, and which row is
// whose.
//
// Which thread has which classes depends on C and the element type alone, never on alignment or on the batch, so that
// sums have one order.
#pragma once

#include "../../math/element.h"
#include "../../math/emission.h"
#include "lanes.h"

namespace fastctc {
namespace cuda {

constexpr int kRowThreads = 256;       // of a block of the row kernels
constexpr int64_t kLongRow = 2048;     // classes; longer rows have a block each, shorter ones a warp
constexpr int64_t kMaxGrid = 1 << 30;  // blocks; they loop over what is beyond
constexpr int kRowWarps = kRowThreads / kWarp;

// Consecutive elements that one instruction moves.
template <class Element>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / int(sizeof(Element));
  Element x[kSize];
};

// A row in memory.
template <class Element>
struct Row {
  Element* x;
  int64_t stride, classes;
  bool packed;  // contiguous and aligned

  __device__ __forceinline__ Row(Element* x, int64_t stride, int64_t classes)
      : x(x), stride(stride), classes(classes), packed(stride == 1 && reinterpret_cast<uintptr_t>(x) % 16 == 0) {}
};

template <class Element>
__device__ __forceinline__ Pack<Element> load_pack(const Row<const Element>& row, int64_t c, Element padding) {
  constexpr int V = Pack<Element>::kSize;
  if (row.packed && c + V <= row.classes) return *reinterpret_cast<const Pack<Element>*>(row.x + c);
  Pack<Element> p;
#pragma unroll
  for (int i = 0; i < V; ++i) p.x[i] = c + i < row.classes ? row.x[(c + i) * row.stride] : padding;
  return p;
}
template <class Element>
__device__ __forceinline__ void store_pack(const Row<Element>& row, int64_t c, const Pack<Element>& p) {
  constexpr int V = Pack<Element>::kSize;
  if (row.packed && c + V <= row.classes) {
    *reinterpret_cast<Pack<Element>*>(row.x + c) = p;
    return;
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (c + i < row.classes) row.x[(c + i) * row.stride] = p.x[i];
  }
}

// The threads that share a row: kWarps warps of a block of kRowThreads.
template <int kWarps>
struct RowTeam {
  static constexpr int kThreads = kWarps * kWarp, kTeams = kRowThreads / kThreads;
  static_assert(kTeams == 1 || kWarps == 1, "a team is a warp or a block");

  static __device__ __forceinline__ int rank() { return int(threadIdx.x) % kThreads; }
  static __device__ __forceinline__ int64_t first_row() {
    return int64_t(blockIdx.x) * kTeams + threadIdx.x / kThreads;
  }
  static __device__ __forceinline__ int64_t row_step() { return int64_t(gridDim.x) * kTeams; }
  static __device__ __forceinline__ void sync() {
    if constexpr (kWarps == 1) __syncwarp();
    if constexpr (kWarps > 1) __syncthreads();
  }
  // op over all threads, in every thread. `shared` has kWarps places.
  template <class T, class Op>
  static __device__ __forceinline__ T reduce(T x, T* shared, const Op& op) {
    for (int d = kWarp / 2; d > 0; d /= 2) x = op(x, from_lane_across(x, d));
    if constexpr (kWarps > 1) {
      __syncthreads();  // the last reduction has been read
      if (lane_id() == 0) shared[warp_id()] = x;
      __syncthreads();
      x = shared[0];
      for (int i = 1; i < kWarps; ++i) x = op(x, shared[i]);
    }
    return x;
  }
  template <class T>
  static __device__ __forceinline__ T sum(T x, T* shared) {
    return reduce(x, shared, [](T a, T b) { return a + b; });
  }
};

// Launches a kernel over rows that has a team of one warp for each.
template <class... P, class... A>
cudaError_t launch_warps(const char* name, void (*kernel)(P...), int64_t rows, size_t shared_bytes, cudaStream_t stream,
                         const A&... arguments) {
  const int64_t blocks = (rows + kRowWarps - 1) / kRowWarps;
  return launch(name, kernel, dim3(unsigned(blocks < kMaxGrid ? blocks : kMaxGrid)), dim3(kRowThreads), shared_bytes,
                stream, arguments...);
}
// Launches `by_warp`, which has a team of one warp for each row, where rows are short, and else `by_block`, which has
// a block for each.
template <class... P, class... A>
cudaError_t launch_rows(const char* name, bool short_rows, void (*by_warp)(P...), void (*by_block)(P...), int64_t rows,
                        size_t shared_bytes, cudaStream_t stream, const A&... arguments) {
  if (short_rows) return launch_warps(name, by_warp, rows, shared_bytes, stream, arguments...);
  return launch(name, by_block, dim3(unsigned(rows < kMaxGrid ? rows : kMaxGrid)), dim3(kRowThreads), shared_bytes,
                stream, arguments...);
}

// Frame t of sample n for each row, in the order of memory.
struct Frame {
  int64_t t, n;
  __device__ __forceinline__ Frame(int64_t row, int64_t frames, int64_t batch, bool frame_first) {
    const int64_t size = frame_first ? batch : frames;
    // A division of 64 bits takes longer than a short row.
    const int64_t outer = ((row | size) >> 32) == 0 ? int64_t(uint32_t(row) / uint32_t(size)) : row / size;
    t = frame_first ? outer : row - outer * size;
    n = frame_first ? row - outer * size : outer;
  }
};

// 2^x; floats below 2^-126 are 0.
__device__ __forceinline__ float power(float x) {
#ifdef __CUDA_ARCH__
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
  return x;
#else
  return exp2f(x);
#endif
}
__device__ __forceinline__ double power(double x) { return exp2(x); }

// The maximum, and the sum of 2^((x - max) log2 e), of the classes of one thread.
template <class Element>
struct OwnStatistics {
  using Scalar = typename ScalarOf<Element>::type;
  static constexpr Scalar kScale = Constants<Scalar>::log2_e;
  Scalar max = Scalar(-INFINITY), sum = 0;

  static __device__ __forceinline__ Scalar finite(Scalar max) { return max == Scalar(-INFINITY) ? Scalar(0) : max; }

  // Takes in the packs at classes c, c + step, and so on.
  template <int kPacks>
  __device__ __forceinline__ void take(const Row<const Element>& row, int64_t c, int step) {
    constexpr int V = Pack<Element>::kSize;
    Element lowest;
    from_scalar(Scalar(-INFINITY), lowest);
    Pack<Element> p[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) p[k] = load_pack(row, c + k * step, lowest);
    Scalar top = max;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int i = 0; i < V; ++i) top = Lanes<Scalar>::max(top, to_scalar(p[k].x[i]));
    }
    const Scalar shift = finite(top);
    sum *= power((max - shift) * kScale);
    max = top;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
#pragma unroll
      for (int i = 0; i < V; ++i) sum += power((to_scalar(p[k].x[i]) - shift) * kScale);
    }
  }
};

// The maximum and the sum of 2^((x - max) log2 e), in one pass: each thread keeps the sum of its own classes relative
// to the maximum so far.
template <class Scalar>
struct RowSum {
  Scalar max, sum;
};
template <int kWarps, class Element, class Scalar = typename ScalarOf<Element>::type>
__device__ __forceinline__ RowSum<Scalar> sum_row(const Row<const Element>& row, Scalar* shared) {
  using T = RowTeam<kWarps>;
  constexpr int V = Pack<Element>::kSize, kStep = T::kThreads * V, kPacks = 4;  // loads under way
  OwnStatistics<Element> own;
  int64_t c = T::rank() * V;
  for (; c + (kPacks - 1) * kStep < row.classes; c += kPacks * kStep) own.template take<kPacks>(row, c, kStep);
#pragma unroll 1
  for (; c < row.classes; c += kStep) own.template take<1>(row, c, kStep);
  const Scalar top = T::reduce(own.max, shared, [](Scalar a, Scalar b) { return Lanes<Scalar>::max(a, b); });
  return {top, T::sum(own.sum * power((own.max - own.finite(top)) * own.kScale), shared)};
}

}  // namespace cuda
}  // namespace fastctc
