// CHECK: an invariant that holds in every build. A broken one ends the process: a restart is safer
// than a wrong write. Use Result or IoStatus for anything that input, a disk or a network can
// cause.
#pragma once

namespace mayastor {
[[noreturn]] void check_failed(const char* file, int line, const char* expression) noexcept;
}  // namespace mayastor

#define CHECK(expression)                                        \
  do {                                                           \
    if (!(expression)) [[unlikely]] {                            \
      ::mayastor::check_failed(__FILE__, __LINE__, #expression); \
    }                                                            \
  } while (false)
