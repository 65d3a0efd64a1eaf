// A main() for fuzz targets built without libFuzzer: replays a corpus folder, then seeded mutations
// of it, through LLVMFuzzerTestOneInput. Why: the same targets run in every test run, with g++ and
// its sanitizers. Usage: NAME_fuzz [CORPUS_FOLDER] [--runs=20000] [--seed=1] [--seconds=10]
// An input that aborts the target is saved as ./crash-NAME-SEED-RUN.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

constexpr size_t kInputLimit = 65536;

struct Options {
  std::string corpus;
  uint64_t runs = 20000;
  uint64_t seed = 1;
  uint64_t seconds = 10;  // mutations stop after this long, however slow the target
};

bool take_number(const char* argument, const char* name, uint64_t& out) {
  const size_t length = std::strlen(name);
  if (std::strncmp(argument, name, length) != 0 || argument[length] != '=') return false;
  char* end = nullptr;
  out = std::strtoull(argument + length + 1, &end, 10);
  if (*end == '\0' && end != argument + length + 1) return true;
  std::fprintf(stderr, "Cannot run: %s is not a number\n", argument);
  std::exit(2);
}

std::vector<Input> load_corpus(const std::string& folder) {
  std::vector<std::string> paths;
  if (DIR* open = opendir(folder.c_str())) {  // a target without seeds is fine
    while (const dirent* entry = readdir(open)) paths.push_back(folder + "/" + entry->d_name);
    closedir(open);
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Input> inputs;
  for (const std::string& path : paths) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

class Mutator final {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  Input next(const std::vector<Input>& corpus) {
    Input input = corpus.empty() ? Input{} : corpus[below(corpus.size())];
    if (below(16) == 0) input.resize(below(300));
    const uint64_t steps = 1 + below(6);
    for (uint64_t i = 0; i < steps; ++i) step(input, corpus);
    if (input.size() > kInputLimit) input.resize(kInputLimit);
    return input;
  }

 private:
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : random_() % limit; }
  void step(Input& input, const std::vector<Input>& corpus) {
    static constexpr uint64_t kNotable[] = {0,      1,       0x7F,       0x80,       0xFF,
                                            0x100,  0xFFF,   0x1000,     0x7FFF,     0xFFFF,
                                            0x8000, 0x10000, 0x7FFFFFFF, 0x80000000, UINT64_MAX};
    const size_t at = below(input.size() + 1);
    const auto position = input.begin() + static_cast<ptrdiff_t>(at);
    switch (below(7)) {
      case 0:  // flip a bit
        if (at < input.size()) input[at] = static_cast<uint8_t>(input[at] ^ (1u << below(8)));
        return;
      case 1:  // set a byte
        if (at < input.size()) input[at] = static_cast<uint8_t>(random_());
        return;
      case 2: {  // a notable number, little endian
        const uint64_t value = kNotable[below(std::size(kNotable))];
        const size_t width = size_t{1} << below(4);
        for (size_t i = 0; i < width && at + i < input.size(); ++i) {
          input[at + i] = static_cast<uint8_t>(value >> (8 * i));
        }
        return;
      }
      case 3:  // cut
        input.erase(position, position + static_cast<ptrdiff_t>(below(input.size() - at + 1)));
        return;
      case 4:  // insert
        input.insert(position, below(16), static_cast<uint8_t>(random_()));
        return;
      case 5: {  // repeat a piece of itself
        const Input piece(position,
                          position + static_cast<ptrdiff_t>(below(input.size() - at + 1)));
        input.insert(input.begin() + static_cast<ptrdiff_t>(below(input.size() + 1)), piece.begin(),
                     piece.end());
        return;
      }
      default: {  // splice another seed
        if (corpus.empty()) return;
        const Input& other = corpus[below(corpus.size())];
        const size_t from = below(other.size() + 1);
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(from), other.end());
        return;
      }
    }
  }
  std::mt19937_64 random_;
};

// Kept while the target runs, so that a crash leaves its input behind.
struct Current {
  const Input* input = nullptr;
  std::string name;
} current;

void save_current(int signal) {
  if (current.input != nullptr) {
    if (std::FILE* file = std::fopen(current.name.c_str(), "wb")) {
      std::fwrite(current.input->data(), 1, current.input->size(), file);
      std::fclose(file);
      std::fprintf(stderr, "input saved as %s\n", current.name.c_str());
    }
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (take_number(argv[i], "--runs", options.runs)) continue;
    if (take_number(argv[i], "--seed", options.seed)) continue;
    if (take_number(argv[i], "--seconds", options.seconds)) continue;
    if (argv[i][0] == '-') {
      std::fprintf(stderr, "Cannot run: unknown option %s\n", argv[i]);
      return 2;
    }
    options.corpus = argv[i];
  }
  std::signal(SIGABRT, save_current);
  const std::vector<Input> corpus = load_corpus(options.corpus);
  const std::string program = std::string(argv[0]).substr(std::string(argv[0]).rfind('/') + 1);
  for (const Input& input : corpus) {
    current.input = &input;
    current.name = "crash-" + program + "-corpus";
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  Mutator mutator(options.seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(options.seconds);
  uint64_t run = 0;
  for (; run < options.runs; ++run) {
    if (run % 64 == 0 && std::chrono::steady_clock::now() > end) break;
    const Input input = mutator.next(corpus);
    current.input = &input;
    current.name =
        "crash-" + program + "-" + std::to_string(options.seed) + "-" + std::to_string(run);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  current.input = nullptr;
  std::printf("%s: %zu corpus inputs, %llu mutations, seed %llu\n", program.c_str(), corpus.size(),
              static_cast<unsigned long long>(run), static_cast<unsigned long long>(options.seed));
  return 0;
}
