// The process that keeps a pod's namespaces: waits for a signal to end, and collects children that
// end before it, because it may be process 1 of a shared PID namespace.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_end(int number) {
  (void)number;
  _exit(0);
}

static void on_child(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction end = {0}, child = {0};
  end.sa_handler = on_end;
  child.sa_handler = on_child;
  child.sa_flags = SA_NOCLDSTOP;
  if (sigaction(SIGINT, &end, 0) != 0 || sigaction(SIGTERM, &end, 0) != 0) return 1;
  if (sigaction(SIGCHLD, &child, 0) != 0) return 1;
  for (;;) pause();
}
