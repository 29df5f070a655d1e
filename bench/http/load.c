// A load generator that costs almost nothing: one thread, epoll, keep-alive connections, whole requests sent as they
// stand in a file. Closed loop (`--connections` callers) or open loop (`--rate` a second, times counted from when a
// request was due). Counts statuses and events, reads the processor time of `--pid`, prints one JSON object.
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

#define MAX_CONNECTIONS 16384
#define BUCKETS (64 * 40)

struct request {
  char *bytes;
  size_t length;
};
struct conn {
  int fd, is_busy, is_connected;
  long long due_at, first_at;
  struct request *request;
  size_t sent;
  /* Answer: 0 head, 1 body of known length, 2 chunk size line, 3 chunk data, 4 trailer line, 5 until closed. */
  int state, status, is_measured, answers;
  size_t left, line_length, events, match;
  char head[16384];
  size_t head_length;
};

static struct conn conns[MAX_CONNECTIONS];
static int idle[MAX_CONNECTIONS], idle_count, opened, max_connections = 64;
static struct request *requests;
static size_t request_count, next_request;
static int port, epfd, expected_events;
static double rate;
static long long measure_from, measure_to;
static unsigned long long done, failures, refused, missing_streams, missing_events, events_seen, reconnects;
static unsigned long long late_count, first_count, statuses[600];
static unsigned buckets[BUCKETS], first_buckets[BUCKETS];
static long long longest;
/* Requests that were due while all connections were busy. */
static long long *backlog;
static size_t backlog_head, backlog_tail;
#define BACKLOG (1 << 20)

static long long now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int bucket_of(long long ns) {
  if (ns < 64) return ns < 0 ? 0 : ns;
  int power = 63 - __builtin_clzll(ns);
  int at = (power - 5) * 64 + ((ns >> (power - 6)) & 63);
  return at < BUCKETS ? at : BUCKETS - 1;
}
static double bucket_ns(int at) {
  if (at < 64) return at;
  int power = at / 64 + 5;
  return (double)(1LL << power) + (double)(at % 64 + 0.5) * (1LL << (power - 6));
}
static double quantile(unsigned *from, double share) {
  unsigned long long sum = 0, total = 0;
  for (int i = 0; i < BUCKETS; i++) total += from[i];
  for (int i = 0; i < BUCKETS; i++) {
    sum += from[i];
    if (sum > 0 && sum >= share * total) return bucket_ns(i) / 1e6;
  }
  return 0;
}

static void load_requests(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) exit((perror(path), 1));
  size_t length, room = 0;
  while (fscanf(file, "%zu", &length) == 1) {
    fgetc(file);
    if (request_count == room) requests = realloc(requests, (room = room ? room * 2 : 1024) * sizeof *requests);
    struct request *request = &requests[request_count++];
    request->bytes = malloc(length);
    request->length = length;
    if (fread(request->bytes, 1, length, file) != length) exit((fprintf(stderr, "short file\n"), 1));
  }
  fclose(file);
  if (request_count == 0) exit((fprintf(stderr, "no requests\n"), 1));
}

static void watch(int at, int operation, int wants_write) {
  struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0), .data.u32 = at};
  epoll_ctl(epfd, operation, conns[at].fd, &event);
}

static void connect_one(int at) {
  struct conn *c = &conns[at];
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  connect(c->fd, (void *)&address, sizeof address);
  c->is_connected = 0;
  c->answers = 0;
  watch(at, EPOLL_CTL_ADD, 1);
}

static void write_request(int at) {
  struct conn *c = &conns[at];
  while (c->sent < c->request->length) {
    ssize_t n = send(c->fd, c->request->bytes + c->sent, c->request->length - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN || errno == ENOTCONN) watch(at, EPOLL_CTL_MOD, 1);
      return;
    }
    c->sent += n;
  }
}

static void begin(int at, long long due_at) {
  struct conn *c = &conns[at];
  c->is_busy = 1;
  c->due_at = due_at;
  c->first_at = 0;
  c->request = &requests[next_request++ % request_count];
  c->sent = c->head_length = c->events = c->match = c->line_length = 0;
  c->state = c->status = 0;
  c->is_measured = due_at >= measure_from && due_at < measure_to;
  if (c->is_connected) write_request(at);
}

static void next_turn(int at, long long now) {
  if (rate > 0) {
    if (backlog_head < backlog_tail) begin(at, backlog[backlog_head++ % BACKLOG]);
    else idle[idle_count++] = at;
  } else if (now < measure_to) begin(at, now);
}

static void finish(int at, long long now, int is_good) {
  struct conn *c = &conns[at];
  c->is_busy = 0;
  c->answers++;
  if (c->is_measured) {
    if (!is_good) failures++;
    else {
      done++;
      if (c->status < 600) statuses[c->status]++;
      if (c->status != 200) refused++;
      long long took = now - c->due_at;
      if (took > longest) longest = took;
      buckets[bucket_of(took)]++;
      if (c->first_at) first_buckets[bucket_of(c->first_at - c->due_at)]++, first_count++;
      if (expected_events && c->status == 200) {
        events_seen += c->events;
        if (c->events != (size_t)expected_events) {
          missing_streams++;
          if (c->events < (size_t)expected_events) missing_events += expected_events - c->events;
        }
      }
    }
  }
  if (!is_good) {
    close(c->fd);
    connect_one(at);
    reconnects++;
  }
  next_turn(at, now);
}

/* Counts lines that begin an event, over any cut. */
static void count_events(struct conn *c, const char *bytes, size_t length) {
  static const char mark[] = "\ndata:";
  for (size_t i = 0; i < length; i++) {
    if (bytes[i] == mark[c->match]) {
      if (++c->match == 6) c->events++, c->match = 0;
    } else c->match = bytes[i] == '\n';
  }
}

static int parse_head(struct conn *c) {
  c->status = atoi(c->head + 9);
  c->state = 5;
  for (char *at = c->head; (at = strchr(at, '\n')); ) {
    at++;
    if (!strncasecmp(at, "content-length:", 15)) c->left = strtoul(at + 15, NULL, 10), c->state = 1;
    if (!strncasecmp(at, "transfer-encoding:", 18)) c->state = 2, c->line_length = 0;
  }
  c->match = 1;
  return c->state == 1 && c->left == 0;
}

static void take(int at, const char *bytes, size_t length, long long now) {
  struct conn *c = &conns[at];
  size_t i = 0;
  while (i < length) {
    if (!c->is_busy) return finish(at, now, 0);
    if (c->state == 0) {
      if (c->head_length + 1 >= sizeof c->head) return finish(at, now, 0);
      c->head[c->head_length++] = bytes[i++];
      if (c->head_length >= 4 && !memcmp(c->head + c->head_length - 4, "\r\n\r\n", 4)) {
        c->head[c->head_length] = 0;
        if (parse_head(c)) finish(at, now, 1);
      }
      continue;
    }
    if (c->state == 2 || c->state == 4) {
      char byte = bytes[i++];
      if (byte != '\n') {
        if (byte != '\r' && c->line_length < 30) c->head[c->line_length++] = byte;
        continue;
      }
      c->head[c->line_length] = 0;
      size_t line = c->line_length;
      c->line_length = 0;
      if (c->state == 4) {
        if (line == 0) finish(at, now, 1);
        continue;
      }
      c->left = strtoul(c->head, NULL, 16);
      if (c->left == 0) c->state = 4;
      else c->left += 2, c->state = 3;
      continue;
    }
    size_t n = length - i;
    if (c->state != 5 && n > c->left) n = c->left;
    if (!c->first_at) c->first_at = now;
    if (expected_events) {
      size_t data = n;
      if (c->state == 3) data = c->left <= 2 ? 0 : (n > c->left - 2 ? c->left - 2 : n);
      count_events(c, bytes + i, data);
    }
    i += n;
    if (c->state == 5) continue;
    c->left -= n;
    if (c->left == 0) {
      if (c->state == 1) finish(at, now, 1);
      else c->state = 2;
    }
  }
}

static unsigned long long ticks_of(const char *path) {
  char text[1024];
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = 0;
  char *after = strrchr(text, ')');
  if (!after) return 0;
  unsigned long long user = 0, system = 0;
  sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  return user + system;
}
static unsigned long long process_ticks(int pid) {
  char path[64];
  sprintf(path, "/proc/%d/stat", pid);
  return ticks_of(path);
}
static unsigned long long machine_ticks(void) {
  unsigned long long v[8] = {0};
  FILE *file = fopen("/proc/stat", "r");
  if (!file) return 0;
  if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) < 8) v[0] = 0;
  fclose(file);
  return v[0] + v[1] + v[2] + v[5] + v[6] + v[7];
}
static long resident_kb(int pid) {
  char path[64];
  long pages = 0, resident = 0;
  sprintf(path, "/proc/%d/statm", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) < 2) resident = 0;
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(int argc, char **argv) {
  double warm_up = 1, seconds = 3;
  int pids[32], pid_count = 0, own[32], own_count = 0;
  const char *path = NULL;
  for (int i = 1; i + 1 < argc; i += 2) {
    char *name = argv[i], *value = argv[i + 1];
    if (!strcmp(name, "--port")) port = atoi(value);
    if (!strcmp(name, "--connections")) max_connections = atoi(value);
    if (!strcmp(name, "--rate")) rate = atof(value);
    if (!strcmp(name, "--warm-up")) warm_up = atof(value);
    if (!strcmp(name, "--seconds")) seconds = atof(value);
    if (!strcmp(name, "--requests")) path = value;
    if (!strcmp(name, "--events")) expected_events = atoi(value);
    if (!strcmp(name, "--pid") && pid_count < 32) pids[pid_count++] = atoi(value);
    if (!strcmp(name, "--own") && own_count < 32) own[own_count++] = atoi(value);
  }
  if (max_connections > MAX_CONNECTIONS) max_connections = MAX_CONNECTIONS;
  load_requests(path);
  backlog = malloc(BACKLOG * sizeof *backlog);
  epfd = epoll_create1(0);
  long long start = now_ns();
  measure_from = start + (long long)(warm_up * 1e9);
  measure_to = measure_from + (long long)(seconds * 1e9);
  long long due = start;
  double step = rate > 0 ? 1e9 / rate : 0;
  unsigned long long sent = 0;
  for (int i = 0; i < max_connections; i++) {
    connect_one(i);
    opened++;
    if (rate > 0) idle[idle_count++] = i;
    else begin(i, now_ns());
  }
  unsigned long long pid_ticks = 0, own_ticks = 0, all_ticks = 0, self_ticks = 0;
  int phase = 0;
  static char buffer[1 << 18];
  struct epoll_event ready[512];
  long long deadline = measure_to + 10000000000LL;
  long long ended_at = 0;
  for (;;) {
    long long now = now_ns();
    if (phase < 2 && now >= (phase == 0 ? measure_from : measure_to)) {
      long sign = phase == 0 ? -1 : 1;
      for (int i = 0; i < pid_count; i++) pid_ticks += sign * process_ticks(pids[i]);
      for (int i = 0; i < own_count; i++) own_ticks += sign * process_ticks(own[i]);
      self_ticks += sign * ticks_of("/proc/self/stat");
      all_ticks += sign * machine_ticks();
      phase++;
      if (phase == 2) ended_at = now;
    }
    int busy = 0;
    if (now >= measure_to) {
      for (int i = 0; i < opened; i++) busy += conns[i].is_busy && conns[i].is_measured;
      if ((busy == 0 && backlog_head == backlog_tail) || now > deadline) break;
    }
    if (rate > 0 && now < measure_to) {
      while (due <= now) {
        if (idle_count > 0) begin(idle[--idle_count], due);
        else if (backlog_tail - backlog_head < BACKLOG) backlog[backlog_tail++ % BACKLOG] = due, late_count++;
        due = start + (long long)(++sent * step);
      }
    }
    long long wait = rate > 0 && now < measure_to ? due - now_ns() : 1000000;
    if (wait < 0) wait = 0;
    struct timespec timeout = {wait / 1000000000LL, wait % 1000000000LL};
    int count = epoll_pwait2(epfd, ready, 512, &timeout, NULL);
    now = now_ns();
    for (int i = 0; i < count; i++) {
      int at = ready[i].data.u32;
      struct conn *c = &conns[at];
      if (ready[i].events & EPOLLOUT) {
        c->is_connected = 1;
        watch(at, EPOLL_CTL_MOD, 0);
        if (c->is_busy) write_request(at);
      }
      if (!(ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
      int fd = c->fd;
      ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n > 0) take(at, buffer, n, now);
      else if (n == 0 || errno != EAGAIN) {
        if (c->is_busy) finish(at, now, c->state == 5 && c->status > 0);
        else {
          close(fd);
          connect_one(at);
          reconnects++;
        }
      }
    }
  }
  double window = (ended_at - measure_from) / 1e9;
  double tick_us = 1e6 / sysconf(_SC_CLK_TCK);
  long resident = 0;
  for (int i = 0; i < pid_count; i++) resident += resident_kb(pids[i]);
  unsigned long long unfinished = 0;
  for (int i = 0; i < opened; i++) unfinished += conns[i].is_busy && conns[i].is_measured;
  printf("{\"requests\":%llu,\"seconds\":%.4f,\"perSecond\":%.1f,\"failures\":%llu,\"refused\":%llu,\"unfinished\":%llu,", done, window,
         done / window, failures, refused, unfinished + (backlog_tail - backlog_head));
  printf("\"p50Ms\":%.4f,\"p99Ms\":%.4f,\"p999Ms\":%.4f,\"longestMs\":%.3f,", quantile(buckets, 0.5), quantile(buckets, 0.99),
         quantile(buckets, 0.999), longest / 1e6);
  printf("\"firstByteP50Ms\":%.4f,\"firstByteP99Ms\":%.4f,", quantile(first_buckets, 0.5), quantile(first_buckets, 0.99));
  printf("\"eventsSeen\":%llu,\"missingEvents\":%llu,\"wrongStreams\":%llu,\"queuedAtCaller\":%llu,\"reconnects\":%llu,", events_seen,
         missing_events, missing_streams, late_count, reconnects);
  printf("\"cpuMicros\":%.1f,\"cpuMicrosPerRequest\":%.2f,\"residentMb\":%.1f,", pid_ticks * tick_us,
         done ? pid_ticks * tick_us / done : 0, resident / 1024.0);
  double others = ((double)all_ticks - pid_ticks - own_ticks - self_ticks) * tick_us / 1e6 / window;
  printf("\"ownCores\":%.3f,\"loadCores\":%.3f,\"othersCores\":%.3f}\n", own_ticks * tick_us / 1e6 / window,
         self_ticks * tick_us / 1e6 / window, others < 0 ? 0 : others);
  return 0;
}
