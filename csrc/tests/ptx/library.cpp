// Finds kernels in the lists that build_ptx.py has written, FASTCTC_PTX_LISTS, and has it compile those that are
// launched.
#include "library.h"

#include <cxxabi.h>
#include <dirent.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <stdexcept>

namespace fastctc::ptx {
namespace {

// Mangled names and the C++ file of each, from all lists of the folder.
std::map<std::string, std::string> read_lists() {
  std::map<std::string, std::string> sources;
  DIR* folder = opendir(FASTCTC_PTX_LISTS);
  if (!folder) throw std::runtime_error("PTX: no folder " FASTCTC_PTX_LISTS);
  while (const dirent* entry = readdir(folder)) {
    const std::string file = entry->d_name;
    if (file.size() < 8 || file.substr(file.size() - 8) != ".kernels") continue;
    std::ifstream list(std::string(FASTCTC_PTX_LISTS "/") + file);
    for (std::string name, source; list >> name >> source;) sources[name] = source;
  }
  closedir(folder);
  return sources;
}

// Without the argument list, and without the name that nvcc gives anonymous namespaces.
std::string readable(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status),
                                                    std::free);
  const std::string name = text ? text.get() : mangled;
  static const std::regex noise(R"(\(anonymous namespace\)::|_GLOBAL__N_\w*::|^void |fastctc::(cuda::)?|\(.*)");
  return std::regex_replace(name, noise, "");
}

// Returns what the command prints on its standard output.
std::string output_of(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("PTX: cannot run " + command);
  std::string text;
  for (int c; (c = std::fgetc(pipe)) != EOF;) text += char(c);
  if (pclose(pipe) != 0) throw std::runtime_error("PTX: fails: " + command + "\n" + text);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

const Kernel* load(const std::string& source) {
  const std::string path = output_of(FASTCTC_PTX_BUILD " compile " + source);
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(std::string("PTX: ") + dlerror());
  const auto* kernel = static_cast<const Kernel*>(dlsym(library, "fastctc_ptx_kernel"));
  if (!kernel) throw std::runtime_error("PTX: " + path + " has no kernel");
  const char* const seed = std::getenv("FASTCTC_PTX_SEED");
  *kernel->approximation_seed = seed ? uint32_t(std::strtoul(seed, nullptr, 10)) : 0;
  return kernel;
}

}  // namespace

const LoadedKernel& kernel_named(const std::string& mangled) {
  static std::mutex mutex;
  static std::map<std::string, LoadedKernel> loaded;
  static const std::map<std::string, std::string> sources = read_lists();
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = loaded.find(mangled);
  if (known != loaded.end()) return known->second;
  const auto source = sources.find(mangled);
  if (source == sources.end()) throw std::runtime_error("PTX: no kernel " + mangled + " in " FASTCTC_PTX_LISTS);
  return loaded[mangled] = {load(source->second), readable(mangled)};
}

}  // namespace fastctc::ptx
