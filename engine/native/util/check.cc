// The end of a process whose invariant broke: one line on standard error, then abort (a core dump).
#include "util/check.h"

#include <cstdio>
#include <cstdlib>

namespace mayastor {

void check_failed(const char* file, int line, const char* expression) noexcept {
  std::fprintf(stderr, "CHECK failed at %s:%d: %s\n", file, line, expression);
  std::fflush(stderr);
  std::abort();
}

}  // namespace mayastor
