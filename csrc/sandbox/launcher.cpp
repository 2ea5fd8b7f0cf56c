// codeact-launcher: one program in two places. `serve` runs outside the sandbox, small, so that
// starting a process is cheap and shows none of the library's memory; `init` runs inside, as do the
// probes of the self-test.
#include <cstdio>
#include <string>
#include <vector>

#include "sandbox/init.h"
#include "sandbox/probe.h"
#include "sandbox/serve.h"

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string role = words.empty() ? "" : words[0];
  const std::vector<std::string> rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (role == "serve") return codeact::sandbox::serve(rest);
  if (role == "init") return codeact::sandbox::run_init(rest);
  if (role == "probe") return codeact::sandbox::run_probe(rest);
  std::fputs("codeact-launcher is started by codeact.sandbox\n", stderr);
  return 2;
}
