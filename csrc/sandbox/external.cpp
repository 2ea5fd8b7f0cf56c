#include "sandbox/external.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace codeact::sandbox {
namespace {

// linux/landlock.h of the building machine may be older than the running kernel, or missing.
constexpr int kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;
constexpr uint32_t kAskVersion = 1;
constexpr int kPathBeneath = 1;

constexpr uint64_t kExecute = 1 << 0, kWriteFile = 1 << 1, kReadFile = 1 << 2, kReadDir = 1 << 3;
constexpr uint64_t kTruncate = 1 << 14, kIoctlDevice = 1 << 15;
constexpr uint64_t kFirstRights = (1 << 13) - 1;  // those of ABI 1, the four above among them
constexpr uint64_t kReadOnly = kExecute | kReadFile | kReadDir;
constexpr uint64_t kOfFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDevice;

struct Ruleset {
  uint64_t files, network, scopes;
};

struct [[gnu::packed]] PathRule {
  uint64_t rights;
  int32_t parent;
};

// Everything that an ABI can refuse. Whatever stands here is refused unless a rule allows it.
Ruleset everything(int abi) {
  Ruleset rules{kFirstRights, 0, 0};
  if (abi >= 2) rules.files |= 1 << 13;  // linking and renaming between folders
  if (abi >= 3) rules.files |= kTruncate;
  if (abi >= 4) rules.network = 3;  // bind and connect, TCP
  if (abi >= 5) rules.files |= kIoctlDevice;
  if (abi >= 6) rules.scopes = 3;  // abstract Unix sockets, signals
  return rules;
}

bool fail(std::string* error, const std::string& what) {
  *error = what + ": " + strerror(errno);
  return false;
}

bool allow(int ruleset, const std::string& path, uint64_t rights, std::string* error) {
  const int parent = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (parent < 0) return errno == ENOENT || fail(error, "open " + path);
  struct stat status;
  if (fstat(parent, &status) == 0 && !S_ISDIR(status.st_mode)) rights &= kOfFiles;
  const PathRule rule{rights, parent};
  const bool added = syscall(kAddRule, ruleset, kPathBeneath, &rule, 0) == 0;
  if (!added) fail(error, "landlock_add_rule " + path);
  close(parent);
  return added;
}

bool allow_all(int ruleset, const std::string& box, const std::vector<std::string>& readable,
               uint64_t known, std::string* error) {
  if (!box.empty() && !allow(ruleset, box, known, error)) return false;
  for (const std::string& path : readable) {
    if (!allow(ruleset, path, kReadOnly, error)) return false;
  }
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/full"}) {
    if (!allow(ruleset, device, kReadFile | kWriteFile | (known & kTruncate), error)) return false;
  }
  for (const char* device : {"/dev/random", "/dev/urandom"}) {
    if (!allow(ruleset, device, kReadFile, error)) return false;
  }
  return true;
}

}  // namespace

int landlock_abi() {
  const long abi = syscall(kCreateRuleset, nullptr, 0, kAskVersion);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

bool restrict_to(const std::string& box, const std::vector<std::string>& readable,
                 std::string* error) {
  const int abi = landlock_abi();
  if (abi < 1) {
    *error = "this kernel has no Landlock (Linux 5.13 or newer, with landlock among its modules)";
    return false;
  }
  const Ruleset rules = everything(abi);
  const int ruleset = static_cast<int>(syscall(kCreateRuleset, &rules, sizeof rules, 0));
  if (ruleset < 0) return fail(error, "landlock_create_ruleset");
  bool done = allow_all(ruleset, box, readable, rules.files, error);
  if (done) {
    done = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(kRestrictSelf, ruleset, 0) == 0;
    if (!done) fail(error, "landlock_restrict_self");
  }
  close(ruleset);
  return done;
}

bool refuse_sockets() {
#if defined(__x86_64__)
  constexpr uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr uint32_t architecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox knows x86-64 and AArch64"
#endif
  constexpr uint32_t number = offsetof(seccomp_data, nr), arch = offsetof(seccomp_data, arch);
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arch),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 2, 0),
#if defined(__x86_64__)
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 1, 0),  // x32 numbers of the same calls
#else
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 1, 0),
#endif
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
  };
  const sock_fprog program{sizeof code / sizeof code[0], code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace codeact::sandbox
