// A provider of the OpenAI API that costs almost nothing: one thread, epoll, loopback only, the same answer every
// time. `--latency-ms` waits before it; a request that holds "stream":true is answered by `--events` events,
// `--gap-ms` apart, with usage and [DONE]. Prints its port; GET /stats gives what it has counted.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 65536

struct conn {
  char *in;
  size_t length, capacity;
  char *out;
  size_t out_at, out_length, out_capacity;
  int events_left;
  int generation;
  int is_open;
};

struct due {
  long long at;
  int fd, generation, is_event;
};
/* Each kind of wait has one length, so what is due first was put in first. */
struct line {
  struct due *items;
  size_t head, tail, mask;
};

static struct conn conns[MAX_FDS];
static struct line waits, gaps;
static int epfd;
static long long latency_ns, gap_ns;
static int event_count = 63;
static unsigned long long requests, streams, hang_ups;
static char answer[4096];
static size_t answer_length;
static char event_text[512], first_event[512], last_events[1024];
static size_t event_length, first_length, last_length;

static long long now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void line_push(struct line *line, struct due due) {
  if (!line->items) {
    line->mask = (1 << 18) - 1;
    line->items = malloc((line->mask + 1) * sizeof *line->items);
  }
  line->items[line->tail++ & line->mask] = due;
}

static size_t chunk(char *to, const char *text) {
  return sprintf(to, "%zx\r\n%s\r\n", strlen(text), text);
}

static void prepare(void) {
  char body[2048], one[512];
  const char *content =
      "Ducks are birds of the family Anatidae. They swim, they dive, they fly, and they are found in fresh "
      "water and at sea. Most of them eat plants, insects and small fish. A duck that is cared for may live "
      "for ten years or more, and it likes company.";
  int n = sprintf(body,
                  "{\"id\":\"chatcmpl-0123456789abcdefghijklmnop\",\"object\":\"chat.completion\",\"created\":1760000000,"
                  "\"model\":\"stub-model-2026-01-01\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                  "\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                  "\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":57,\"total_tokens\":78,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":0}},\"system_fingerprint\":\"fp_0123456789\"}",
                  content);
  answer_length = sprintf(answer,
                          "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                          "x-request-id: req_0123456789\r\n\r\n%s",
                          n, body);
  const char *common =
      "data: {\"id\":\"chatcmpl-0123456789abcdefghijklmnop\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
      "\"model\":\"stub-model-2026-01-01\",\"choices\":";
  sprintf(one, "%s[{\"index\":0,\"delta\":{\"content\":\" duck\"},\"finish_reason\":null}]}\n\n", common);
  event_length = chunk(event_text, one);
  sprintf(one, "%s[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n", common);
  first_length = sprintf(first_event,
                         "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                         "transfer-encoding: chunked\r\n\r\n");
  first_length += chunk(first_event + first_length, one);
  sprintf(one, "%s[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":63,\"total_tokens\":84}}\n\n", common);
  last_length = chunk(last_events, one);
  last_length += chunk(last_events + last_length, "data: [DONE]\n\n");
  last_length += sprintf(last_events + last_length, "0\r\n\r\n");
}

static void shut(int fd) {
  struct conn *c = &conns[fd];
  if (!c->is_open) return;
  if (c->events_left > 0) hang_ups++;
  c->is_open = 0;
  c->generation++;
  c->length = c->out_at = c->out_length = 0;
  c->events_left = 0;
  close(fd);
}

static void put(int fd, const char *bytes, size_t length) {
  struct conn *c = &conns[fd];
  if (c->out_at == c->out_length) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN) return shut(fd);
      sent = 0;
    }
    if ((size_t)sent == length) return;
    bytes += sent;
    length -= sent;
    c->out_at = c->out_length = 0;
    struct epoll_event want = {.events = EPOLLIN | EPOLLOUT, .data.fd = fd};
    epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &want);
  }
  if (c->out_length + length > c->out_capacity) {
    c->out_capacity = (c->out_length + length) * 2;
    c->out = realloc(c->out, c->out_capacity);
  }
  memcpy(c->out + c->out_length, bytes, length);
  c->out_length += length;
}

static void drain(int fd) {
  struct conn *c = &conns[fd];
  while (c->out_at < c->out_length) {
    ssize_t sent = send(fd, c->out + c->out_at, c->out_length - c->out_at, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno != EAGAIN) shut(fd);
      return;
    }
    c->out_at += sent;
  }
  struct epoll_event want = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &want);
}

static void next_event(int fd) {
  struct conn *c = &conns[fd];
  c->events_left--;
  put(fd, event_text, event_length);
  if (!c->is_open) return;
  if (c->events_left > 0) {
    struct due due = {now_ns() + gap_ns, fd, c->generation, 1};
    line_push(&gaps, due);
  } else {
    put(fd, last_events, last_length);
  }
}

static void begin_answer(int fd, int is_stream) {
  struct conn *c = &conns[fd];
  if (!is_stream) return put(fd, answer, answer_length);
  streams++;
  put(fd, first_event, first_length);
  if (!c->is_open) return;
  c->events_left = event_count;
  if (gap_ns > 0) {
    struct due due = {now_ns() + gap_ns, fd, c->generation, 1};
    line_push(&gaps, due);
  } else {
    while (c->is_open && c->events_left > 0) next_event(fd);
  }
}

static void stats(int fd) {
  char body[256], whole[512];
  int n = sprintf(body, "{\"requests\":%llu,\"streams\":%llu,\"hangUps\":%llu}", requests, streams, hang_ups);
  int length = sprintf(whole, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", n, body);
  put(fd, whole, length);
}

/* Length of a chunked body that is complete, -1 otherwise. */
static long chunked_length(const char *body, size_t length) {
  size_t at = 0;
  for (;;) {
    char *line_end = memmem(body + at, length - at, "\r\n", 2);
    if (!line_end) return -1;
    size_t size = strtoul(body + at, NULL, 16);
    at = line_end - body + 2 + size + 2;
    if (at > length) return -1;
    if (size == 0) return at;
  }
}

static const char *find_header(const char *head, size_t length, const char *name) {
  size_t name_length = strlen(name);
  for (const char *at = head; (size_t)(at - head) + name_length < length; at++) {
    if (at[0] == '\n' && strncasecmp(at + 1, name, name_length) == 0) return at + 1 + name_length;
  }
  return NULL;
}

static void take(int fd) {
  struct conn *c = &conns[fd];
  size_t used = 0;
  while (c->is_open && c->length > used) {
    char *start = c->in + used;
    size_t left = c->length - used;
    char *head_end = memmem(start, left, "\r\n\r\n", 4);
    if (!head_end) break;
    size_t head = head_end + 4 - start;
    const char *value = find_header(start, head, "content-length:");
    const char *encoding = find_header(start, head, "transfer-encoding:");
    size_t body = value ? strtoul(value, NULL, 10) : 0;
    if (encoding) {
      long chunked = chunked_length(start + head, left - head);
      if (chunked < 0) break;
      body = chunked;
    }
    if (left < head + body) break;
    used += head + body;
    if (memcmp(start, "GET ", 4) == 0) {
      stats(fd);
      continue;
    }
    requests++;
    char *mark = memmem(start + head, body, "\"stream\":", 9);
    int is_stream = mark && (mark[9] == 't' || mark[10] == 't');
    if (latency_ns > 0) {
      struct due due = {now_ns() + latency_ns, fd, c->generation, is_stream ? 2 : 0};
      line_push(&waits, due);
    } else {
      begin_answer(fd, is_stream);
    }
  }
  if (!c->is_open) return;
  if (used > 0) memmove(c->in, c->in + used, c->length - used);
  c->length -= used;
}

static void receive(int fd) {
  struct conn *c = &conns[fd];
  for (;;) {
    if (c->capacity - c->length < 65536) {
      c->capacity = c->capacity ? c->capacity * 2 : 131072;
      c->in = realloc(c->in, c->capacity);
    }
    ssize_t got = recv(fd, c->in + c->length, c->capacity - c->length, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return shut(fd);
    if (got < 0) return;
    c->length += got;
    take(fd);
    if (!c->is_open || (size_t)got < 65536) return;
  }
}

static void run_due(struct line *line, long long now) {
  while (line->head < line->tail && line->items[line->head & line->mask].at <= now) {
    struct due due = line->items[line->head++ & line->mask];
    struct conn *c = &conns[due.fd];
    if (!c->is_open || c->generation != due.generation) continue;
    if (due.is_event == 1) next_event(due.fd);
    else begin_answer(due.fd, due.is_event == 2);
  }
}

static long long next_due(long long none) {
  long long at = none;
  if (waits.head < waits.tail && waits.items[waits.head & waits.mask].at < at) at = waits.items[waits.head & waits.mask].at;
  if (gaps.head < gaps.tail && gaps.items[gaps.head & gaps.mask].at < at) at = gaps.items[gaps.head & gaps.mask].at;
  return at;
}

int main(int argc, char **argv) {
  int port = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
    if (!strcmp(argv[i], "--latency-ms")) latency_ns = atof(argv[i + 1]) * 1e6;
    if (!strcmp(argv[i], "--gap-ms")) gap_ns = atof(argv[i + 1]) * 1e6;
    if (!strcmp(argv[i], "--events")) event_count = atoi(argv[i + 1]);
  }
  prepare();
  int one = 1;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) return perror("listen"), 1;
  socklen_t size = sizeof address;
  getsockname(listener, (void *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  epfd = epoll_create1(0);
  struct epoll_event want = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &want);
  struct epoll_event ready[512];
  for (;;) {
    long long now = now_ns();
    long long wait = next_due(now + 1000000000LL) - now;
    if (wait < 0) wait = 0;
    struct timespec timeout = {wait / 1000000000LL, wait % 1000000000LL};
    int count = epoll_pwait2(epfd, ready, 512, &timeout, NULL);
    for (int i = 0; i < count; i++) {
      int fd = ready[i].data.fd;
      if (fd == listener) {
        int accepted;
        while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          if (accepted >= MAX_FDS) {
            close(accepted);
            continue;
          }
          setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          conns[accepted].is_open = 1;
          struct epoll_event watch = {.events = EPOLLIN, .data.fd = accepted};
          epoll_ctl(epfd, EPOLL_CTL_ADD, accepted, &watch);
        }
        continue;
      }
      if (conns[fd].is_open && (ready[i].events & EPOLLOUT)) drain(fd);
      if (conns[fd].is_open && (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) receive(fd);
    }
    now = now_ns();
    run_due(&waits, now);
    run_due(&gaps, now);
  }
}
