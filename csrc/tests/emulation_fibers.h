// Fibers for cuda_emulation.h, and the hooks by which sanitizers follow them. Only cuda_emulation.h includes this file.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(FASTCTC_EMULATION_UCONTEXT)
#define FASTCTC_EMULATION_UCONTEXT
#endif
#ifdef FASTCTC_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// The emulator's own bookkeeping is shared by all fibers and must be invisible to ThreadSanitizer: functions
// that run on fibers are marked FASTCTC_UNTRACKED, whatever they call into the standard library is wrapped in
// Untracked.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#define FASTCTC_UNTRACKED __attribute__((no_sanitize_thread))
#else
#define FASTCTC_UNTRACKED
#endif

namespace fastctc::emulation {

struct Untracked {
#ifdef __SANITIZE_THREAD__
  Untracked() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Untracked() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Untracked() {}
#endif
};

inline void happens_before(void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(tag);
#endif
  (void)tag;
}
inline void happens_after(void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(tag);
#endif
  (void)tag;
}

struct Context {
#ifdef FASTCTC_EMULATION_UCONTEXT
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  const void* stack_low = nullptr;
  size_t stack_bytes = 0;
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

#ifndef FASTCTC_EMULATION_UCONTEXT
// Saves the callee-saved registers, stores the stack pointer through the first argument, continues on the
// second. glibc's swapcontext does the same plus a system call for the signal mask.
extern "C" void fastctc_emulation_switch(void** save, void* load);
asm(R"(
  .pushsection .text.fastctc_emulation_switch,"axG",@progbits,fastctc_emulation_switch,comdat
  .weak fastctc_emulation_switch
  .hidden fastctc_emulation_switch
  .type fastctc_emulation_switch,@function
fastctc_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size fastctc_emulation_switch,.-fastctc_emulation_switch
  .popsection
)");
#endif

}  // namespace fastctc::emulation
