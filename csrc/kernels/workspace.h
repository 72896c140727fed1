// Slices of one block of memory. The same sequence of take() calls sizes a workspace (base = null) and hands it out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../math/recursion.h"

namespace fastctc {

class Workspace {
 public:
  FASTCTC_HD explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  FASTCTC_HD T* take(int64_t count) {
    T* const p = exists() ? reinterpret_cast<T*>(base_ + size_) : nullptr;
    size_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
  // Memory of a number type, with `before` numbers in front of the first.
  template <class Memory>
  FASTCTC_HD Memory take_numbers(int64_t count, int64_t before = 0) {
    const Memory p = Memory::from([&] { return take<typename Memory::Scalar>(before + count); });
    return exists() ? p + before : p;
  }
  template <class Scalar>
  FASTCTC_HD Plane<Scalar> take_plane(int64_t count, int64_t before = 0) {
    return take_numbers<Plane<Scalar>>(count, before);
  }
  FASTCTC_HD size_t size() const { return size_; }

 private:
  // On a device there is always memory: a test would hide from the compiler in which address space it is.
  FASTCTC_HD bool exists() const {
#ifdef __CUDA_ARCH__
    return true;
#else
    return base_ != nullptr;
#endif
  }

  char* base_;
  size_t size_ = 0;
};

}  // namespace fastctc
