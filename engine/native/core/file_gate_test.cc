// FileGate: each file has its own few places, and the rest waits its turn.
#include "core/file_gate.h"

#include <gtest/gtest.h>

namespace mayastor {
namespace {

// Only compared, never used.
PosixFile* file_number(uintptr_t number) {
  return reinterpret_cast<PosixFile*>(number * 64);
}

TEST(FileGate, OneFileNeverTakesThePlacesOfAnother) {
  FileGate gate(2);
  DiskOp ops[6];
  for (DiskOp& op : ops) op.file = file_number(1);
  EXPECT_TRUE(gate.enter(&ops[0]));
  EXPECT_TRUE(gate.enter(&ops[1]));
  for (int i = 2; i < 5; ++i) EXPECT_FALSE(gate.enter(&ops[i]));
  ops[5].file = file_number(2);
  EXPECT_TRUE(gate.enter(&ops[5]));
  EXPECT_EQ(gate.leave(file_number(2)), nullptr);
  // Those that wait start in the order they came, one for each that ends.
  for (int i = 2; i < 5; ++i) EXPECT_EQ(gate.leave(file_number(1)), &ops[i]);
  EXPECT_EQ(gate.leave(file_number(1)), nullptr);
  EXPECT_EQ(gate.leave(file_number(1)), nullptr);
  EXPECT_TRUE(gate.enter(&ops[0]));
  EXPECT_TRUE(gate.enter(&ops[1]));
  EXPECT_FALSE(gate.enter(&ops[2]));
}

}  // namespace
}  // namespace mayastor
