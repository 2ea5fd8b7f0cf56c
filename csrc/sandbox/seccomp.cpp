#include "sandbox/seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <vector>

namespace codeact::sandbox {
namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox knows x86-64 and AArch64"
#endif

// Numbers above 423 are the same on both architectures and missing from older headers.
constexpr int kOpenTree = 428, kMoveMount = 429, kFsopen = 430, kFsconfig = 431, kFsmount = 432,
              kFspick = 433, kPidfdGetfd = 438, kMountSetattr = 442, kMemfdSecret = 447;
constexpr unsigned kPushInput = 0x5412, kConsoleInput = 0x541C;  // TIOCSTI, TIOCLINUX

const std::vector<int> kDenied = {
    // Other processes.
    __NR_ptrace,
    __NR_process_vm_readv,
    __NR_process_vm_writev,
    __NR_kcmp,
    kPidfdGetfd,
    // Namespaces and mounts.
    __NR_unshare,
    __NR_setns,
    __NR_mount,
    __NR_umount2,
    __NR_pivot_root,
    __NR_chroot,
    kOpenTree,
    kMoveMount,
    kFsopen,
    kFsconfig,
    kFsmount,
    kFspick,
    kMountSetattr,
    __NR_open_by_handle_at,
    __NR_name_to_handle_at,
    __NR_quotactl,
    __NR_fanotify_init,
    // Large parts of the kernel that have had holes.
    __NR_bpf,
    __NR_perf_event_open,
    __NR_userfaultfd,
    __NR_io_uring_setup,
    __NR_io_uring_enter,
    __NR_io_uring_register,
    __NR_add_key,
    __NR_request_key,
    __NR_keyctl,
    __NR_personality,
    // The machine.
    __NR_kexec_load,
    __NR_kexec_file_load,
    __NR_init_module,
    __NR_finit_module,
    __NR_delete_module,
    __NR_reboot,
    __NR_swapon,
    __NR_swapoff,
    __NR_syslog,
    __NR_settimeofday,
    __NR_clock_settime,
    __NR_adjtimex,
    __NR_clock_adjtime,
    __NR_acct,
    __NR_sethostname,
    __NR_setdomainname,
    // Memory that no process holds and no file limit sees.
    __NR_memfd_create,
    kMemfdSecret,
    __NR_shmget,
    __NR_msgget,
    __NR_semget,
    __NR_mq_open,
#if defined(__x86_64__)
    __NR_iopl,
    __NR_ioperm,
    __NR_modify_ldt,
    __NR_uselib,
#endif
};

// Namespaces do not cover the others; AF_VSOCK, for one, reaches from a guest to its host.
const std::vector<int> kAllowedSockets = {AF_UNIX, AF_INET, AF_INET6};

constexpr unsigned kNewNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

class Program {
 public:
  void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset)); }
  void load_argument(int number) {  // its low half: the machine is little-endian
    load(offsetof(seccomp_data, args) + 8 * number);
  }
  void fail(int error) { add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error); }
  void allow() { add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW); }
  void kill() { add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS); }
  // Goes on with the next instruction when the test holds, past it when not; and the reverse.
  void next_if_equal(unsigned value) { add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1); }
  void skip_if_equal(unsigned value) { add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0); }
  void next_if_any_bit(unsigned bits) { add(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1); }
  void skip_if_any_bit(unsigned bits) { add(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0); }
  void next_if_at_least(unsigned value) { add(BPF_JMP | BPF_JGE | BPF_K, value, 0, 1); }
  // Past `count` instructions unless the loaded value is `value`.
  size_t unless_equal(unsigned value) {
    add(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0);
    return code_.size() - 1;
  }
  void end_unless(size_t at) { code_[at].jf = static_cast<unsigned char>(code_.size() - at - 1); }

  bool install() {
    sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
  }

 private:
  void add(int code, unsigned value, int if_true = 0, int if_false = 0) {
    code_.push_back({static_cast<unsigned short>(code), static_cast<unsigned char>(if_true),
                     static_cast<unsigned char>(if_false), value});
  }
  std::vector<sock_filter> code_;
};

}  // namespace

bool filter_system_calls(bool single_process) {
  Program filter;
  filter.load(offsetof(seccomp_data, arch));
  filter.skip_if_equal(kArchitecture);
  filter.kill();
  filter.load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  filter.next_if_at_least(0x40000000);  // the x32 numbers of the same calls
  filter.fail(EPERM);
#endif
  for (const int number : kDenied) {
    filter.next_if_equal(static_cast<unsigned>(number));
    filter.fail(EPERM);
  }
  filter.next_if_equal(__NR_clone3);
  filter.fail(ENOSYS);
#if defined(__x86_64__)
  if (single_process) {
    for (const int number : {__NR_fork, __NR_vfork}) {
      filter.next_if_equal(static_cast<unsigned>(number));
      filter.fail(EPERM);
    }
  }
#endif

  size_t end = filter.unless_equal(__NR_clone);
  filter.load_argument(0);
  filter.next_if_any_bit(kNewNamespaces);
  filter.fail(EPERM);
  if (single_process) {
    filter.skip_if_any_bit(CLONE_THREAD);
    filter.fail(EPERM);
  }
  filter.allow();
  filter.end_unless(end);

  end = filter.unless_equal(__NR_ioctl);
  filter.load_argument(1);
  for (const unsigned request : {kPushInput, kConsoleInput}) {
    filter.next_if_equal(request);
    filter.fail(EPERM);
  }
  filter.allow();
  filter.end_unless(end);

  end = filter.unless_equal(__NR_socket);
  filter.load_argument(0);
  for (const int family : kAllowedSockets) {
    filter.next_if_equal(static_cast<unsigned>(family));
    filter.allow();
  }
  filter.fail(EPERM);
  filter.end_unless(end);

  filter.allow();
  return filter.install();
}

}  // namespace codeact::sandbox
