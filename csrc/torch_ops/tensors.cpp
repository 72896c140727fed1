#include "tensors.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <torch/csrc/stable/accelerator.h>

#include <algorithm>
#include <limits>
#include <string>

#include "../kernels/launch_error.h"

namespace fastctc {

DType dtype_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    default:
      value_error(name, " must be of type float16, bfloat16, float32 or float64");
  }
}

ScalarType scalar_type_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

static std::string device_name(const Tensor& t) {
  return t.is_cuda() ? "cuda:" + std::to_string(t.get_device_index()) : t.is_cpu() ? "cpu" : "another device";
}

void check_device(const Tensor& t, const char* name, const Tensor& input) {
  if (t.is_cuda() != input.is_cuda() || t.get_device_index() != input.get_device_index()) {
    value_error(name, " is on ", device_name(t), ", but input is on ", device_name(input));
  }
}

void check_place(const Tensor& t, const char* name, const Tensor& input) {
  check_device(t, name, input);
  if (!t.is_contiguous()) value_error(name, " must be contiguous");
}

void check_images(const Tensor& t, const char* name) {
  bool holds = !t.is_cuda() && t.scalar_type() == ScalarType::Float && t.dim() == 4;
  if (holds) {
    int64_t stride = 1;
    for (const int d : {1, 3, 2, 0}) {
      holds &= t.stride(d) == stride || t.size(d) <= 1;
      stride *= t.size(d);
    }
  }
  if (!holds) value_error(name, " must be a float32 tensor (N, C, H, W) on the CPU, contiguous in channels_last");
}

bool has_shape(const Tensor& t, std::initializer_list<int64_t> shape) {
  if (t.dim() != int64_t(shape.size())) return false;
  int64_t d = 0;
  for (const int64_t size : shape) {
    if (t.size(d++) != size) return false;
  }
  return true;
}

const int64_t* int64_data(const Tensor& t, const char* name, const Tensor& input) {
  if (t.scalar_type() != ScalarType::Long) value_error(name, " must be of type int64");
  check_place(t, name, input);
  return static_cast<const int64_t*>(t.const_data_ptr());
}

const int64_t* lengths_data(const Lengths& lengths, const char* name, const Tensor& input, int64_t batch) {
  const auto* const list = std::get_if<std::vector<int64_t>>(&lengths);
  if (list ? int64_t(list->size()) != batch : !has_shape(std::get<Tensor>(lengths), {batch})) {
    value_error(name, " must have one value for each of the ", batch, " samples");
  }
  return list ? list->data() : int64_data(std::get<Tensor>(lengths), name, input);
}

void check_input_lengths(const int64_t* lengths, int64_t batch, int64_t frames) {
  for (int64_t n = 0; n < batch; ++n) {
    if (lengths[n] < 0) value_error("input_lengths[", n, "] is ", lengths[n], ", but must not be negative");
    if (lengths[n] > frames) {
      value_error("input_lengths[", n, "] is ", lengths[n], ", but log_probs has ", frames, " frames");
    }
  }
}

void* saved_data(const Tensor& t, const char* name, const Tensor& input, ScalarType type,
                 std::initializer_list<int64_t> shape) {
  if (t.scalar_type() != type || !has_shape(t, shape)) {
    value_error(name, " is not what fastctc::ctc_loss returned for these arguments");
  }
  check_place(t, name, input);
  return const_cast<void*>(t.const_data_ptr());
}

void host_memory_error(size_t bytes) {
  throw std::runtime_error("DefaultCPUAllocator: can't allocate memory: you tried to allocate " +
                           std::to_string(bytes) + " bytes");
}

// Throws what PyTorch said in this thread when it could not allocate `elements` elements. Before PyTorch 2.13 that is
// not handed on.
[[noreturn]] static void allocation_error(const Tensor& place, double elements) {
  using Function = const char* (*)();
  static const auto last_message =
      reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  if (last_message) throw std::runtime_error(last_message());
  std::ostringstream text;
  text << (place.is_cuda() ? "CUDA out of memory, or in an error state: could not allocate "
                           : "DefaultCPUAllocator: can't allocate memory: you tried to allocate ")
       << elements << " elements";
  throw std::runtime_error(text.str());
}

constexpr int64_t kMostDimensions = 4;  // of a tensor that an op makes

template <class Allocate>
static Tensor allocated(const Tensor& place, std::initializer_list<int64_t> shape, const Allocate& allocate) {
  try {
    return allocate();
  } catch (const std::runtime_error&) {
    double elements = 1;
    for (const int64_t size : shape) elements *= double(size);
    allocation_error(place, elements);
  }
}

// By the C interface: a call by the name of the op costs several times as much.
static Tensor empty_strided(const Tensor& like, std::initializer_list<int64_t> shape, const int64_t* strides,
                            ScalarType type) {
  return allocated(like, shape, [&] {
    int32_t device_type = 0;
    AtenTensorHandle made = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(int64_t(shape.size()), shape.begin(), strides,
                                 torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)), device_type,
                                 like.get_device_index(), &made));
    return Tensor(made);
  });
}
Tensor empty_tensor(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  int64_t strides[kMostDimensions], stride = 1;
  for (int64_t d = int64_t(shape.size()) - 1; d >= 0; --d) {
    const int64_t size = std::max(shape.begin()[d], int64_t(1));
    strides[d] = stride;
    if (__builtin_mul_overflow(stride, size, &stride)) stride = std::numeric_limits<int64_t>::max();  // is refused
  }
  return empty_strided(like, shape, strides, type);
}
Tensor zero_tensor(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  return allocated(like, shape, [&] { return torch::stable::new_zeros(like, shape, type); });
}
Tensor tensor_like(const Tensor& t) {
  if (t.dim() == 3 && t.is_contiguous()) return empty_tensor(t, {t.size(0), t.size(1), t.size(2)}, t.scalar_type());
  return allocated(t, {t.numel()}, [&] { return torch::stable::empty_like(t); });
}

Tensor device_workspace(const Tensor& t, size_t bytes) { return empty_tensor(t, {int64_t(bytes)}, ScalarType::Byte); }

constexpr size_t kHugePage = size_t(2) << 20;
constexpr size_t kLeastReused = size_t(32) << 20;  // what malloc() hands back to the system each time it is freed

void advise_huge_pages(void* p, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(p) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

namespace {

struct KeptMemory {
  static constexpr size_t kBytes = size_t(128) << 10;
  void* memory = nullptr;
  bool is_used = false;
  ~KeptMemory() { std::free(memory); }
};
thread_local KeptMemory kept;

}  // namespace

namespace {

struct Block {
  void* memory = nullptr;
  size_t bytes = 0;
};

// Large blocks that were freed. The system may take their pages back whenever it is short of memory.
struct FreedBlocks {
  std::mutex lock;
  Block blocks[2];  // a layer and its gradient
};

FreedBlocks& freed_blocks() {
  static auto* const freed = new FreedBlocks;  // never destroyed: tensors may outlive this library's other objects
  return *freed;
}

// Takes the smallest block that is kept and has from `bytes` to `most` bytes, else a new one.
Block take_block(size_t bytes, size_t most) {
  bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  FreedBlocks& freed = freed_blocks();
  {
    const std::lock_guard<std::mutex> guard(freed.lock);
    Block* best = nullptr;
    for (Block& each : freed.blocks) {
      if (each.bytes >= bytes && each.bytes <= most && (!best || each.bytes < best->bytes)) best = &each;
    }
    if (best) return std::exchange(*best, Block());
  }
  return {std::aligned_alloc(kHugePage, bytes), bytes};
}

// Keeps a block instead of the smallest one, if that is smaller. PyTorch calls it when a tensor is freed.
void free_block(void* memory, void* context) {
  Block block{memory, reinterpret_cast<size_t>(context)};
#ifdef MADV_FREE
  madvise(block.memory, block.bytes, MADV_FREE);
  FreedBlocks& freed = freed_blocks();
  {
    const std::lock_guard<std::mutex> guard(freed.lock);
    Block& smallest = freed.blocks[freed.blocks[0].bytes <= freed.blocks[1].bytes ? 0 : 1];
    if (smallest.bytes < block.bytes) std::swap(smallest, block);
  }
#endif
  std::free(block.memory);
}

using FromBlob = AOTITorchError (*)(void*, int64_t, const int64_t*, const int64_t*, int64_t, int32_t, int32_t, int32_t,
                                    AtenTensorHandle*, int32_t, const uint8_t*, int64_t, void (*)(void*, void*), void*);

// A tensor on the CPU in a block, or null.
AtenTensorHandle in_block(const Tensor& place, int64_t dims, const int64_t* sizes, const int64_t* strides,
                          ScalarType type, size_t bytes, size_t most) {
  static const auto from_blob = reinterpret_cast<FromBlob>(dlsym(RTLD_DEFAULT, "torch_from_blob"));  // PyTorch 2.11
  if (bytes < kLeastReused || !from_blob) return nullptr;
  const auto [memory, size] = take_block(bytes, most);
  if (!memory) return nullptr;
  AtenTensorHandle made = nullptr;
  const int32_t code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  if (from_blob(memory, dims, sizes, strides, 0, code, aoti_torch_device_type_cpu(), place.get_device_index(), &made,
                aoti_torch_layout_strided(), nullptr, 0, &free_block, reinterpret_cast<void*>(size)) != 0) {
    std::free(memory);
    return nullptr;
  }
  return made;
}

// Of memory that lives as long as a call, or until its gradient is there. It leaves much larger blocks to gradients.
constexpr size_t most_for(size_t bytes) { return 2 * bytes; }

}  // namespace

Tensor reused_tensor_like(const Tensor& t) {
  const int64_t sizes[] = {t.size(0), t.size(1), t.size(2)};
  int64_t strides[] = {sizes[1] * sizes[2], sizes[2], 1};
  if (!t.is_contiguous()) {
    strides[0] = sizes[2];
    strides[1] = sizes[0] * sizes[2];
  }
  bool dense = true;
  for (int64_t d = 0; d < 3; ++d) dense &= t.stride(d) == strides[d];
  if (!dense) return tensor_like(t);
  const size_t bytes = size_t(t.numel()) * t.element_size();
  const AtenTensorHandle made =
      in_block(t, 3, sizes, strides, t.scalar_type(), bytes, std::numeric_limits<size_t>::max());
  return made ? Tensor(made) : tensor_like(t);
}

Tensor reused_tensor(const Tensor& like, int64_t count, ScalarType type) {
  const int64_t stride = 1;
  const size_t bytes = size_t(count) * (type == ScalarType::Double ? sizeof(double) : sizeof(float));
  const AtenTensorHandle made = in_block(like, 1, &count, &stride, type, bytes, most_for(bytes));
  return made ? Tensor(made) : empty_tensor(like, {count}, type);
}

Tensor empty_images(const Tensor& like, int64_t batch, int64_t channels, int64_t rows, int64_t columns) {
  const int64_t sizes[] = {batch, channels, rows, columns};
  const int64_t strides[] = {rows * columns * channels, 1, columns * channels, channels};
  const size_t bytes = size_t(batch * channels * rows * columns) * like.element_size();
  const AtenTensorHandle made = in_block(like, 4, sizes, strides, like.scalar_type(), bytes, most_for(bytes));
  return made ? Tensor(made) : empty_strided(like, {batch, channels, rows, columns}, strides, like.scalar_type());
}

HostWorkspace::HostWorkspace(size_t bytes) : memory_(nullptr) {
  if (bytes <= KeptMemory::kBytes && !kept.is_used) {
    if (!kept.memory) kept.memory = std::aligned_alloc(64, KeptMemory::kBytes);
    memory_ = kept.memory;
    kept.is_used = is_kept_ = memory_ != nullptr;
  }
  if (!memory_ && bytes >= kLeastReused) {
    const Block block = take_block(bytes, most_for(bytes));
    memory_ = block.memory;
    block_bytes_ = block.bytes;
  } else if (!memory_) {
    memory_ = std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  }
  if (!memory_) host_memory_error(bytes);
}
HostWorkspace::~HostWorkspace() {
  if (is_kept_) {
    kept.is_used = false;
  } else if (block_bytes_ > 0) {
    free_block(memory_, reinterpret_cast<void*>(block_bytes_));
  } else {
    std::free(memory_);
  }
}

#ifdef FASTCTC_EMULATED_CUDA

bool on_cuda(const Tensor&) { return true; }
DeviceGuard::DeviceGuard(const Tensor&) {}
void* current_stream(const Tensor&) { return nullptr; }
#else

bool on_cuda(const Tensor& t) { return t.is_cuda(); }
DeviceGuard::DeviceGuard(const Tensor& t)
    : guard_(std::make_shared<torch::stable::accelerator::DeviceGuard>(t.get_device_index())) {}

// Only CUDA builds of PyTorch have this function, and the same binary serves CPU builds: so it is looked up when
// needed, in the library that is loaded already.
void* current_stream(const Tensor& t) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const Function function = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<Function>(dlsym(library ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  }();
  if (!function) throw std::runtime_error("fastctc: this PyTorch has no CUDA support");
  void* stream = nullptr;
  if (function(t.get_device_index(), &stream) != 0) throw std::runtime_error("fastctc: no current CUDA stream");
  return stream;
}

#endif

void check_cuda(int error) {
  constexpr int kMemoryAllocation = 2;  // cudaErrorMemoryAllocation
  if (error == kMemoryAllocation) throw std::runtime_error("CUDA out of memory at the launch of a kernel of fastctc");
  if (error != 0) throw std::runtime_error("fastctc: CUDA error " + cuda::describe_error(error));
}

}  // namespace fastctc
