// What recovery found in the metadata region. Internal to loading (blobstore_load.cc,
// blobstore_orphans.cc).
#pragma once
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "lvs/blobstore.h"

namespace mayastor {

struct Blobstore::Scan {
  std::vector<uint32_t> roots;
  struct Torn {
    uint32_t page;
    uint64_t blob_id;  // what its header says
    bool no_tail;      // its last bytes are zero, the checksum among them
  };
  std::vector<Torn> torn;       // neither valid nor empty
  std::vector<uint32_t> stray;  // valid, nothing to do with its place: shadows, extent pages
  std::map<uint32_t, uint32_t> shadows;  // where the copy of a page lies; the highest, if several
  std::map<uint32_t, lvs_format::Page> repaired;  // pages that are to be written
  std::vector<uint32_t> emptied;       // torn roots that are to be empty: deletes, half creates
  std::vector<uint32_t> half_deleted;  // whole roots of deletes that are to be finished
  std::vector<uint32_t> half_chains;   // the pages by which those are known
  // Valid pages that are no roots of their place, and the blob that each was written for.
  std::vector<std::pair<uint32_t, uint64_t>> chain_pages;
  std::vector<std::pair<uint32_t, uint64_t>> misplaced_roots;
  std::vector<std::pair<uint32_t, uint64_t>> extent_pages;
};

}  // namespace mayastor
