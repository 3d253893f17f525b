/* A paced WebSocket generator that shares nothing with wsnode: an open model in C on epoll, to check it against.

   paced PORT CLIENTS RATE_PER_S WARM_UP_S SECONDS

   Message n is due at origin + n / rate, sent on connection n % clients as 64 masked bytes of text that begin with n.
   Nothing is sent before it is due, and nothing waits for a reply. Prints one JSON object: what was due after the
   warm-up, sent, answered, wrong, and the percentiles (ns) from the send and from the due time to the reply. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 64
#define FRAME (2 + 4 + PAYLOAD)
#define ECHO (2 + PAYLOAD)

struct client { int fd; size_t held; unsigned char in[65536]; };

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Nearest rank over all that were due: what never came ranks above all that did. */
static void tell(const char *name, int64_t *values, int64_t count, int64_t due) {
  static const double shares[] = {0.5, 0.9, 0.95, 0.99};
  static const char *names[] = {"p50", "p90", "p95", "p99"};
  qsort(values, count, sizeof *values, ascending);
  printf(", \"%s\": {", name);
  for (int i = 0; i < 4; i++) {
    int64_t rank = (int64_t)(shares[i] * due);
    if (rank < shares[i] * due) rank++;
    if (rank < 1) rank = 1;
    printf(rank <= count ? "%s\"%s\": %lld" : "%s\"%s\": null", i ? ", " : "", names[i],
           rank <= count ? (long long)values[rank - 1] : 0LL);
  }
  printf("}");
}

static int opened(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  static const char ask[] = "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (write(fd, ask, sizeof ask - 1) != sizeof ask - 1) die("handshake");
  char answer[4096];
  size_t got = 0;
  while (got < sizeof answer - 1) {
    ssize_t n = read(fd, answer + got, 1);
    if (n != 1) die("handshake");
    answer[++got] = 0;
    if (got >= 4 && !memcmp(answer + got - 4, "\r\n\r\n", 4)) break;
  }
  if (strncmp(answer, "HTTP/1.1 101 ", 13)) { fprintf(stderr, "refused: %.60s\n", answer); exit(1); }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 6) { fprintf(stderr, "paced PORT CLIENTS RATE_PER_S WARM_UP_S SECONDS\n"); return 2; }
  int port = atoi(argv[1]), clients = atoi(argv[2]);
  int64_t rate = atoll(argv[3]), warm = rate * atoll(argv[4]), total = warm + rate * atoll(argv[5]);
  struct client *all = calloc(clients, sizeof *all);
  int64_t *sent_at = calloc(total, sizeof *sent_at), *from_send = calloc(total, sizeof *from_send),
          *from_due = calloc(total, sizeof *from_due);
  unsigned char *answered = calloc(total, 1);
  int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
  epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
  for (int i = 0; i < clients; i++) {
    all[i].fd = opened(port);
    event.data.u32 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
  }
  int64_t origin = now_ns() + 100000000, next = 0, came = 0, kept = 0, wrong = 0, unsent = 0;
  int64_t end = origin + (int64_t)((double)total / rate * 1e9) + 2000000000LL;
#define DUE(n) (origin + (int64_t)((__int128)(n) * 1000000000LL / rate))
  while ((next < total || came + unsent < total) && now_ns() < end) {
    int64_t wake = next < total ? DUE(next) : end;
    struct itimerspec at = {.it_value = {.tv_sec = wake / 1000000000LL, .tv_nsec = wake % 1000000000LL}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    struct epoll_event ready[64];
    int count = epoll_wait(poll, ready, 64, -1);
    for (int e = 0; e < count; e++) {
      if (ready[e].data.u32 == UINT32_MAX) { uint64_t ticks; if (read(timer, &ticks, 8) < 0 && errno != EAGAIN) die("timer"); continue; }
      struct client *client = &all[ready[e].data.u32];
      ssize_t got = recv(client->fd, client->in + client->held, sizeof client->in - client->held, 0);
      if (got <= 0) { if (got < 0 && errno == EAGAIN) continue; fprintf(stderr, "a connection ended\n"); return 1; }
      int64_t now = now_ns();
      client->held += got;
      size_t place = 0;
      for (; client->held - place >= ECHO; place += ECHO) {
        unsigned char *frame = client->in + place;
        int64_t n = atoll((char *)frame + 2);
        if (frame[0] != 0x81 || frame[1] != PAYLOAD || n < 0 || n >= next || n % clients != ready[e].data.u32 || answered[n]) { wrong++; continue; }
        answered[n] = 1;
        came++;
        if (n >= warm) { from_send[kept] = now - sent_at[n]; from_due[kept++] = now - DUE(n); }
      }
      memmove(client->in, client->in + place, client->held -= place);
    }
    for (int64_t now; next < total && (now = now_ns()) >= DUE(next); next++) {
      unsigned char frame[FRAME] = {0x81, 0x80 | PAYLOAD, 0x5a, 0x17, 0xc3, 0x88};
      char text[PAYLOAD + 1];
      int length = snprintf(text, sizeof text, "%lld ", (long long)next);
      memset(text + length, 'x', PAYLOAD - length);
      for (int i = 0; i < PAYLOAD; i++) frame[6 + i] = text[i] ^ frame[2 + i % 4];
      sent_at[next] = now_ns();
      if (send(all[next % clients].fd, frame, FRAME, MSG_NOSIGNAL) != FRAME) { sent_at[next] = 0; unsent++; }
    }
  }
  printf("{\"due\": %lld, \"answered\": %lld, \"wrong\": %lld, \"unsent\": %lld", (long long)(total - warm), (long long)kept,
         (long long)wrong, (long long)unsent);
  tell("from_send", from_send, kept, total - warm);
  tell("from_due", from_due, kept, total - warm);
  printf("}\n");
  return 0;
}
