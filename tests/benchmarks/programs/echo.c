/* The kernel's own price: a WebSocket echo server with nothing but epoll. It trusts its clients, checks no UTF-8, waits
 * for a reader that does not read, and is a measure, not a server.  cc -O2 -o echo echo.c && ./echo */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 20, BATCH = 64 };
static unsigned char input[MOST + 65536], output[MOST + 65536];
struct connection { int open; size_t size; unsigned char *rest; };
static struct connection *connections;

static uint32_t turned(uint32_t x, int by) { return x << by | x >> (32 - by); }

static void sha1_block(uint32_t h[5], const unsigned char *block) {
  uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 80; i++) w[i] = turned(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  for (int i = 0; i < 80; i++) {
    uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
    uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
    uint32_t t = turned(a, 5) + f + e + k + w[i];
    e = d, d = c, c = turned(b, 30), b = a, a = t;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void accept_key(const char *key, char *to) { /* base64(sha1(key + GUID)): 60 bytes, so two blocks */
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  unsigned char text[128] = {0}, sum[21] = {0};
  uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
  memcpy(text, key, 24);
  memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
  text[60] = 0x80, text[126] = 480 >> 8, text[127] = 480 & 255;
  sha1_block(h, text), sha1_block(h, text + 64);
  for (int i = 0; i < 20; i++) sum[i] = h[i / 4] >> (24 - 8 * (i % 4));
  for (int i = 0; i < 7; i++) {
    uint32_t three = sum[3 * i] << 16 | sum[3 * i + 1] << 8 | sum[3 * i + 2];
    for (int j = 0; j < 4; j++) *to++ = digits[three >> (18 - 6 * j) & 63];
  }
  to[-1] = '=', *to = 0;
}

static void give(int fd, const unsigned char *data, size_t size) {
  while (size) {
    ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent > 0) data += sent, size -= sent;
    else if (errno == EAGAIN) poll(&(struct pollfd){fd, POLLOUT, 0}, 1, 1000);
    else return;
  }
}

static size_t echo(int fd, unsigned char *data, size_t size) { /* returns how much of it were whole frames */
  size_t at = 0, out = 0;
  while (size - at >= 6) {
    size_t length = data[at + 1] & 127, head = 2;
    if (length == 126) length = data[at + 2] << 8 | data[at + 3], head = 4;
    else if (length == 127) {
      if (size - at < 14) break;
      length = 0, head = 10;
      for (int i = 2; i < 10; i++) length = length << 8 | data[at + i];
      if (length > MOST - 64) { shutdown(fd, SHUT_RDWR); return size; }
    }
    if (size - at < head + 4 + length) break;
    if (out + 10 + length > sizeof output) give(fd, output, out), out = 0;
    int closes = (data[at] & 15) == 8;
    memcpy(output + out, data + at, head);
    output[out + 1] &= 127;
    if ((data[at] & 15) == 9) output[out] = 0x8A;
    unsigned char *mask = data + at + head, *from = mask + 4, *to = output + out + head;
    for (size_t i = 0; i < length; i++) to[i] = from[i] ^ mask[i & 3];
    at += head + 4 + length, out += head + length;
    if (closes) { give(fd, output, out); shutdown(fd, SHUT_WR); return size; }
  }
  give(fd, output, out);
  return at;
}

static void receive(int fd) {
  struct connection *c = &connections[fd];
  memcpy(input, c->rest, c->size);
  ssize_t got = recv(fd, input + c->size, sizeof input - c->size - 1, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { free(c->rest); memset(c, 0, sizeof *c); close(fd); return; }
  size_t size = c->size + got, used = 0;
  if (c->open) used = echo(fd, input, size);
  else {
    input[size] = 0;
    char *end = strstr((char *)input, "\r\n\r\n"), *key = strcasestr((char *)input, "\r\nSec-WebSocket-Key: ");
    if (end && key) {
      char accept[32], answer[160];
      accept_key(key + 21, accept);
      int n = snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
      give(fd, (unsigned char *)answer, n);
      c->open = 1;
      used = (unsigned char *)end + 4 - input;
      used += echo(fd, input + used, size - used);
    }
  }
  free(c->rest);
  c->rest = NULL, c->size = size - used;
  if (c->size) c->rest = malloc(c->size), memcpy(c->rest, input + used, c->size);
}

int main(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
  connections = calloc(files.rlim_max, sizeof *connections);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poller = epoll_create1(0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t width = sizeof at;
  if (!connections || bind(listener, (struct sockaddr *)&at, width) || listen(listener, 65535)) return perror("echo"), 1;
  getsockname(listener, (struct sockaddr *)&at, &width);
  printf("ws://127.0.0.1:%d/echo\n", ntohs(at.sin_port)), fflush(stdout);
  struct epoll_event events[BATCH], wanted = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &wanted);
  for (;;) {
    int ready = epoll_wait(poller, events, BATCH, -1);
    for (int i = 0; i < ready; i++) {
      if (events[i].data.fd != listener) { receive(events[i].data.fd); continue; }
      for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        wanted.data.fd = fd;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted);
      }
    }
  }
}
