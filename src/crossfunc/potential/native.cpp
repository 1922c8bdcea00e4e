// CHGNet in one call: energies, forces and virials, and the gradient of any loss of them by every parameter.
//
// The function is that of forward.py and inference.py; their tests compare all three. Written out are
//   1. values;
//   2. hats, x^ = dE/dx of everything, backwards: forces and virials;
//   3. dots, the change x' of everything along a direction of the bonds' vectors, forwards;
//   4. bars, backwards: the gradient of sum(g_E e) + sum(q dE/dv), the direction of 3 being q = the loss's slope by dE/dv.
// A linear layer y = x W has in 4 the gradient x y- + x' y^, so nothing else is needed of the second derivative.
// Rows (directed edges, angles) are worked on in blocks that stay in the caches of a core; all features are 64 wide.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 4
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE 2
#else
#define VECTOR_BYTES 16
#define TILE 2
#endif

namespace {

constexpr int F = 64, F2 = 128, NR = 31, NRP = 32, NA = 15, RB = 48, N_CONV = 4;

// --- vectors ---

template <class T> struct Kind;
template <> struct Kind<float> {
  typedef float V __attribute__((vector_size(VECTOR_BYTES)));
  typedef int32_t I __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr float magic = 12582912.f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f, lowest = -87.f, highest = 88.f;
  static constexpr float half_pi[3] = {1.5703125f, 4.837512969970703125e-4f, 7.549789948768648e-8f};
  static constexpr int mantissa = 23, bias = 127, exp_terms = 7, trig_terms = 5;
};
template <> struct Kind<double> {
  typedef double V __attribute__((vector_size(VECTOR_BYTES)));
  typedef int64_t I __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr double magic = 6755399441055744., ln2_hi = 6.93145751953125e-1, ln2_lo = 1.42860682030941723212e-6,
                          lowest = -707., highest = 708.;
  static constexpr double half_pi[3] = {1.5707962512969970703125, 7.54978941586159635335e-8, 5.39030285815811905290e-15};
  static constexpr int mantissa = 52, bias = 1023, exp_terms = 13, trig_terms = 9;
};

template <class T> using V = typename Kind<T>::V;
template <class T> constexpr int W = VECTOR_BYTES / sizeof(T);
template <class T> constexpr int NV = F / W<T>;  // vectors of a row of features

template <class T> inline V<T> load(const T* p) { V<T> v; std::memcpy(&v, p, sizeof v); return v; }
template <class T> inline void store(T* p, V<T> v) { std::memcpy(p, &v, sizeof v); }
template <class T> inline V<T> all(T x) { return x - V<T>{}; }
template <class T> inline T sum(V<T> v) {
  T s[W<T>];
  std::memcpy(s, &v, sizeof v);
  for (int n = W<T> / 2; n; n /= 2)
    for (int k = 0; k < n; ++k) s[k] += s[k + n];
  return s[0];
}

template <class T> inline double dot(const T* a, const T* b) {
  double s = 0;
  for (int k = 0; k < F; ++k) s += double(a[k]) * b[k];
  return s;
}

template <class T> inline V<T> exponential(V<T> x) {
  using K = Kind<T>;
  x = x < K::lowest ? all<T>(K::lowest) : x;
  x = x > K::highest ? all<T>(K::highest) : x;
  V<T> t = x * T(1.4426950408889634074) + K::magic, n = t - K::magic;  // rounds to whole numbers
  V<T> r = x - n * K::ln2_hi - n * K::ln2_lo, y = all<T>(1);
  for (int k = K::exp_terms; k > 0; --k) y = y * r * T(1.0 / k) + T(1);
  V<T> m = all<T>(K::magic);
  typename K::I a, b;
  std::memcpy(&a, &t, sizeof a);
  std::memcpy(&b, &m, sizeof b);
  a = (a - b + K::bias) << K::mantissa;
  std::memcpy(&t, &a, sizeof t);
  return y * t;
}

template <class T> inline V<T> sigmoid(V<T> x) { return T(1) / (T(1) + exponential<T>(-x)); }

template <class T> inline void sine_cosine(V<T> x, V<T>& sine, V<T>& cosine) {
  using K = Kind<T>;
  V<T> t = x * T(0.63661977236758134308) + K::magic, n = t - K::magic;
  V<T> r = x - n * K::half_pi[0] - n * K::half_pi[1] - n * K::half_pi[2], r2 = r * r, s = all<T>(1), c = all<T>(1);
  for (int k = K::trig_terms; k > 0; --k) {
    s = T(1) - s * r2 * T(1.0 / (2 * k * (2 * k + 1)));
    c = T(1) - c * r2 * T(1.0 / (2 * k * (2 * k - 1)));
  }
  s = s * r;
  typename K::I q;
  std::memcpy(&q, &t, sizeof q);
  V<T> a = (q & 1) != 0 ? c : s, b = (q & 1) != 0 ? s : c;
  sine = (q & 2) != 0 ? -a : a;
  cosine = ((q + 1) & 2) != 0 ? -b : b;
}

// Rounded after every operation, as PyTorch's operations do it: at a straight angle 1 - c^2 leaves 2e-6 of 1, so that the
// last bit of a cosine is 1e-10 of every slope that runs through it.
template <class T> inline T dot3(const T* a, const T* b) {
  volatile T x = a[0] * b[0], y = a[1] * b[1], z = a[2] * b[2], s = x + y;
  return s + z;
}
template <class T> inline T inverse_sine(T cosine) {
  volatile T square = cosine * cosine;
  return 1 / std::sqrt(1 - square);
}

// --- products ---

// rows c (n x columns) = [c +] bias + a (n x k) b (k x columns)
template <class T, int R, int C>
inline void tile(const T* a, int lda, const T* b, int ldb, T* c, int ldc, int k, const T* bias, bool add) {
  V<T> s[R][C];
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < C; ++j) {
      s[i][j] = add ? load<T>(c + i * ldc + j * W<T>) : V<T>{};
      if (bias) s[i][j] += load<T>(bias + j * W<T>);
    }
  for (int l = 0; l < k; ++l) {
    V<T> right[C];
    for (int j = 0; j < C; ++j) right[j] = load<T>(b + l * ldb + j * W<T>);
    for (int i = 0; i < R; ++i) {
      V<T> left = all<T>(a[i * lda + l]);
      for (int j = 0; j < C; ++j) s[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < C; ++j) store<T>(c + i * ldc + j * W<T>, s[i][j]);
}

template <class T, int COLUMNS = F>
void product(int n, const T* a, int lda, const T* b, int ldb, T* c, int ldc, int k = F, const T* bias = nullptr,
             bool add = false) {
  constexpr int C = TILE < COLUMNS / W<T> ? TILE : COLUMNS / W<T>;
  for (int j = 0; j < COLUMNS; j += C * W<T>) {
    const T* right = b + j;
    const T* rest = bias ? bias + j : nullptr;
    int i = 0;
    for (; i + 6 <= n; i += 6) tile<T, 6, C>(a + i * lda, lda, right, ldb, c + i * ldc + j, ldc, k, rest, add);
    for (; i + 2 <= n; i += 2) tile<T, 2, C>(a + i * lda, lda, right, ldb, c + i * ldc + j, ldc, k, rest, add);
    for (; i < n; ++i) tile<T, 1, C>(a + i * lda, lda, right, ldb, c + i * ldc + j, ldc, k, rest, add);
  }
}

// r rows of g += a^T b over n rows
template <class T, int R, int C>
inline void outer_tile(int n, const T* a, int lda, const T* b, int ldb, T* g, int ldg) {
  V<T> s[R][C];
  for (int x = 0; x < R; ++x)
    for (int y = 0; y < C; ++y) s[x][y] = load<T>(g + x * ldg + y * W<T>);
  for (int row = 0; row < n; ++row) {
    V<T> right[C];
    for (int y = 0; y < C; ++y) right[y] = load<T>(b + row * ldb + y * W<T>);
    for (int x = 0; x < R; ++x) {
      V<T> left = all<T>(a[row * lda + x]);
      for (int y = 0; y < C; ++y) s[x][y] += left * right[y];
    }
  }
  for (int x = 0; x < R; ++x)
    for (int y = 0; y < C; ++y) store<T>(g + x * ldg + y * W<T>, s[x][y]);
}

// g (64 x columns) += a^T b over n rows
template <class T, int COLUMNS = F> void outer(int n, const T* a, int lda, const T* b, int ldb, T* g, int ldg) {
  constexpr int C = TILE < COLUMNS / W<T> ? TILE : COLUMNS / W<T>;
  for (int start = 0; start < n; start += RB) {
    int rows = std::min(n - start, RB);
    const T *left = a + size_t(start) * lda, *right = b + size_t(start) * ldb;
    for (int j = 0; j < COLUMNS; j += C * W<T>) {
      int i = 0;
      for (; i + 6 <= F; i += 6) outer_tile<T, 6, C>(rows, left + i, lda, right + j, ldb, g + i * ldg + j, ldg);
      for (; i + 2 <= F; i += 2) outer_tile<T, 2, C>(rows, left + i, lda, right + j, ldb, g + i * ldg + j, ldg);
    }
  }
}

template <class T> inline void add_row(T* to, const T* from, int n = F) {
  for (int k = 0; k < n; ++k) to[k] += from[k];
}

template <class T> void transpose(const T* from, int ld, int rows, int columns, T* to, int ldt) {
  for (int c = 0; c < columns; ++c)
    for (int r = 0; r < rows; ++r) to[c * ldt + r] = from[r * ld + c];
}

template <class T> void add_columns(int n, const T* rows, int ld, T* to) {
  for (int r = 0; r < n; ++r) add_row(to, rows + r * ld);
}

// --- memory: one block for each call, kept for the next ---

constexpr size_t KEPT = size_t(256) << 20, LINE = 64;

struct Memory {
  std::vector<std::unique_ptr<char[]>> blocks;
  size_t size = 0, used = 0, total = 0;  // of the last block; of all

  void* take(size_t bytes) {
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (used + bytes > size) open(std::max(bytes, std::max(total, size_t(1) << 20)));
    char* p = blocks.back().get() + used;
    used += bytes;
    return p;
  }
  // next time all of it in one block
  void reset() {
    if (blocks.size() > 1) {
      size_t needed = total;
      blocks.clear();
      total = 0;
      open(needed);
    }
    used = skip();
  }

 private:
  void open(size_t bytes) {
    size = bytes + LINE;
    total += size;
    blocks.emplace_back(new char[size]);
    used = skip();
  }
  size_t skip() const { return blocks.empty() ? 0 : -reinterpret_cast<uintptr_t>(blocks.back().get()) % LINE; }
};

std::mutex kept_lock;
std::vector<std::unique_ptr<Memory>> kept_memory;

std::unique_ptr<Memory> borrow() {
  std::lock_guard<std::mutex> guard(kept_lock);
  if (kept_memory.empty()) return std::make_unique<Memory>();
  auto memory = std::move(kept_memory.back());
  kept_memory.pop_back();
  return memory;
}

void give_back(std::unique_ptr<Memory> memory) {
  if (memory->total > KEPT) return;
  memory->reset();
  std::lock_guard<std::mutex> guard(kept_lock);
  size_t total = memory->total;
  for (auto& other : kept_memory) total += other->total;
  if (total <= KEPT) kept_memory.push_back(std::move(memory));
}

// --- numbers next to zero ---

// Gates that are nearly shut and envelopes near the cutoff multiply to numbers below 1e-38, on which some processors
// are a hundred times slower; here they are zero, on this thread and until the call ends.
#if defined(__x86_64__)
class TinyIsZero {
 public:
  TinyIsZero() : before(_mm_getcsr()) { _mm_setcsr(before | 0x8040); }  // flush to zero, and read as zero
  ~TinyIsZero() { _mm_setcsr(before); }

 private:
  unsigned before;
};
#else
class TinyIsZero {
 public:
  TinyIsZero() {}
  ~TinyIsZero() {}
};
#endif

// --- threads of one call ---

// Whoever is free takes the next block. Nobody waits for a thread that has not begun: on a busy machine it may be long.
class Team {
 public:
  explicit Team(int n) {
    for (int k = 1; k < n; ++k) threads.emplace_back([this] { serve(); });
  }
  ~Team() {
    next_job(0);
    for (auto& t : threads) t.join();
  }
  // f(start, stop) for blocks of n rows, in any order
  template <class Function> void each(int n, Function f, int block = RB) {
    int n_blocks = (n + block - 1) / block;
    auto work = [&](int k) { f(k * block, std::min(n, (k + 1) * block)); };
    if (threads.empty() || n_blocks < 4) {
      for (int k = 0; k < n_blocks; ++k) work(k);
      return;
    }
    call = [](void* w, int k) { (*static_cast<decltype(work)*>(w))(k); };
    context = &work;
    done.store(0);
    next_job(n_blocks);
    take_blocks();
    for (int tries = 0; done.load() < n_blocks; ++tries) pause(tries);
  }

 private:
  // number of the job, and how many of its blocks nobody has taken
  static constexpr uint64_t ONE_JOB = uint64_t(1) << 32, LEFT = ONE_JOB - 1;

  void next_job(int n_blocks) {
    jobs.store((jobs.load() / ONE_JOB + 1) * ONE_JOB + n_blocks);
    stopped.store(n_blocks == 0);
    round.fetch_add(1);
    round.notify_all();
  }
  void take_blocks() {
    for (uint64_t seen = jobs.load(); seen & LEFT; seen = jobs.load())
      if (jobs.compare_exchange_weak(seen, seen - 1)) {
        call(context, int(seen & LEFT) - 1);  // stays as it is until this block is done
        done.fetch_add(1);
      }
  }
  void serve() {
    TinyIsZero flush;
    for (int seen = 0; !stopped.load();) {
      take_blocks();
      for (int tries = 0; round.load() == seen && tries < 3000; ++tries) pause(0);
      round.wait(seen);
      seen = round.load();
    }
  }
  static void pause(int tries) {
    if (tries > 3000) std::this_thread::yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::vector<std::thread> threads;
  void (*call)(void*, int) = nullptr;
  void* context = nullptr;
  std::atomic<uint64_t> jobs{0};
  std::atomic<int> done{0}, round{0};
  std::atomic<bool> stopped{false};
};

// --- parameters ---

enum { ELEMENTS, FREQ_A, FREQ_B, TO_BOND, TO_WEIGHT, TO_SHORT, FREQ_ANGLE, TO_ANGLE, FIRST_GATE };
constexpr int SIZE_TWO = 13, SIZE_ONE = 8, ATOM_GATE = FIRST_GATE, BOND_GATE = ATOM_GATE + 4 * SIZE_TWO,
              ANGLE_GATE = BOND_GATE + 3 * SIZE_TWO, SITE = ANGLE_GATE + 2 * SIZE_ONE, NORM = SITE + 2, READ = NORM + 2,
              N_PARAMETERS = READ + 8;

template <class T> struct Gate {
  int parts;
  bool second;
  const T *first[2], *bias[2], *second_matrix[2], *second_bias[2], *gamma[2], *beta[2], *out;  // as PyTorch has them
  const T *first_t[2], *second_t[2], *out_t;                                                   // transposed
  const T* front(int part, int side) const { return first_t[side] + part * F * F; }
  const T* back(int part, int side) const { return first[side] + part * F; }
  int ld() const { return parts * F; }
};

template <class T> struct GateSlopes {
  T *first[2], *bias[2], *second[2], *second_bias[2], *gamma[2], *beta[2], *out;
};

template <class T> struct Radial {
  double cutoff, norm, a, b, c;
  int p;
  const T* frequencies;  // padded to 32
  // Amplitude A and its slope: functions are A(r) sin(f r / cutoff). In float64 and rounded after every operation, as
  // chgnet has it: close to the cutoff the envelope is 1e-5 of its terms.
  void amplitude(T r, T& A, T& slope) const {
    double s = double(r) / cutoff, below = std::pow(s, p - 1), power = std::pow(s, p), above = std::pow(s, p + 1);
    if (!(s < 1)) {
      A = slope = 0;
      return;
    }
    volatile double one = a * power, two = b * above, three = c * std::pow(s, p + 2), envelope = 1 + one;
    envelope = envelope + two;
    envelope = envelope + three;
    volatile double first = a * p * below, second = b * (p + 1) * power, third = c * (p + 2) * above, steep = first + second;
    steep = (steep + third) / cutoff;
    A = T(norm * envelope / r);
    slope = T(norm * (steep - envelope / r) / r);
  }
};

template <class T> struct Network {
  std::vector<T> data;
  Gate<T> atom[4], bond[3], angle[2];
  Radial<T> long_radial, short_radial;
  const T* p[N_PARAMETERS];
  const T *to_bond_t, *to_weight_t, *to_short_t, *to_angle_t;  // (32, 64)
  const T *to_bond_p, *to_weight_p, *to_short_p, *to_angle_p;  // (64, 32)
  const T *freq_angle, *read_t[3];
  int64_t n[N_PARAMETERS];

  // sizes of parameters, cutoffs and exponents: {cutoff_a, p_a, cutoff_b, p_b}
  Network(const T* const* given, const int64_t* sizes, const double* radial) {
    size_t total = 0;
    for (int k = 0; k < N_PARAMETERS; ++k) total += sizes[k] + 16;
    data.resize(2 * total + 9 * (F * NRP + 16) + 64);
    T* at = data.data();
    auto take = [&](size_t n) { T* q = at; at += (n + 15) / 16 * 16; return q; };
    for (int k = 0; k < N_PARAMETERS; ++k) {
      T* q = take(sizes[k]);
      std::memcpy(q, given[k], sizes[k] * sizeof(T));
      p[k] = q;
      n[k] = sizes[k];
    }
    auto square = [&](const T* m) { T* q = take(F * F); transpose(m, F, F, F, q, F); return q; };
    auto fill = [&](Gate<T>& g, int at, int parts, bool second) {
      g.parts = parts;
      g.second = second;
      g.out = g.out_t = nullptr;
      for (int side = 0; side < 2; ++side) {
        g.first[side] = p[at++];
        g.bias[side] = p[at++];
        g.second_matrix[side] = second ? p[at++] : nullptr;
        g.second_bias[side] = second ? p[at++] : nullptr;
        T* q = take(parts * F * F);
        transpose(g.first[side], parts * F, F, parts * F, q, F);
        g.first_t[side] = q;
        g.second_t[side] = second ? square(g.second_matrix[side]) : nullptr;
      }
      for (int side = 0; side < 2; ++side) {
        g.gamma[side] = p[at++];
        g.beta[side] = p[at++];
      }
      if (second) {
        g.out = p[at];
        g.out_t = square(g.out);
      }
    };
    for (int k = 0; k < 4; ++k) fill(atom[k], ATOM_GATE + k * SIZE_TWO, 3, true);
    for (int k = 0; k < 3; ++k) fill(bond[k], BOND_GATE + k * SIZE_TWO, 4, true);
    for (int k = 0; k < 2; ++k) fill(angle[k], ANGLE_GATE + k * SIZE_ONE, 4, false);
    for (int k = 0; k < 3; ++k) read_t[k] = square(p[READ + 2 * k]);
    auto padded = [&](int which, const T*& wide, const T*& turned) {
      T *q = take(F * NRP), *t = take(F * NRP);
      std::memset(t, 0, F * NRP * sizeof(T));
      for (int r = 0; r < F; ++r) {
        for (int c = 0; c < NR; ++c) q[r * NRP + c] = p[which][r * NR + c];
        q[r * NRP + NR] = 0;
      }
      transpose(q, NRP, F, NR, t, F);
      wide = q;
      turned = t;
    };
    padded(TO_BOND, to_bond_p, to_bond_t);
    padded(TO_WEIGHT, to_weight_p, to_weight_t);
    padded(TO_SHORT, to_short_p, to_short_t);
    padded(TO_ANGLE, to_angle_p, to_angle_t);
    auto row = [&](int which, int n) {
      T* q = take(NRP);
      std::memset(q, 0, NRP * sizeof(T));
      std::memcpy(q, p[which], n * sizeof(T));
      return q;
    };
    auto set = [&](Radial<T>& f, const double* r, int which) {
      double e = r[1];
      f = {r[0], std::sqrt(2 / r[0]), -(e + 1) * (e + 2) / 2, e * (e + 2), -e * (e + 1) / 2, int(e), row(which, NR)};
    };
    set(long_radial, radial, FREQ_A);
    set(short_radial, radial + 2, FREQ_B);
    freq_angle = row(FREQ_ANGLE, NA);
  }
};

template <class T> struct Slopes {  // one place for each parameter
  GateSlopes<T> atom[4], bond[3], angle[2];
  T** p;
  explicit Slopes(T** given) : p(given) {
    auto fill = [&](GateSlopes<T>& g, int at, bool second) {
      for (int side = 0; side < 2; ++side) {
        g.first[side] = p[at++];
        g.bias[side] = p[at++];
        g.second[side] = second ? p[at++] : nullptr;
        g.second_bias[side] = second ? p[at++] : nullptr;
      }
      for (int side = 0; side < 2; ++side) {
        g.gamma[side] = p[at++];
        g.beta[side] = p[at++];
      }
      g.out = second ? p[at] : nullptr;
    };
    for (int k = 0; k < 4; ++k) fill(atom[k], ATOM_GATE + k * SIZE_TWO, true);
    for (int k = 0; k < 3; ++k) fill(bond[k], BOND_GATE + k * SIZE_TWO, true);
    for (int k = 0; k < 2; ++k) fill(angle[k], ANGLE_GATE + k * SIZE_ONE, false);
  }
};

// --- rows through a layer norm: x is the normalised row, r its inverse deviation ---

template <class T> inline void normalise(const T* row, T* x, T& r) {
  V<T> v[NV<T>], s{};
  for (int j = 0; j < NV<T>; ++j) s += v[j] = load<T>(row + j * W<T>);
  T mean = sum<T>(s) / F;
  s = V<T>{};
  for (int j = 0; j < NV<T>; ++j) {
    v[j] -= mean;
    s += v[j] * v[j];
  }
  r = 1 / std::sqrt(sum<T>(s) / F + T(1e-5));
  for (int j = 0; j < NV<T>; ++j) store<T>(x + j * W<T>, v[j] * r);
}

// J q = r (q - mean(q) - x mean(x q)), symmetric; `along` becomes mean(x q)
template <class T> inline void through_norm(const T* q, const T* x, T r, T* out, T& along) {
  V<T> a{}, b{};
  for (int j = 0; j < NV<T>; ++j) {
    V<T> v = load<T>(q + j * W<T>);
    a += v;
    b += v * load<T>(x + j * W<T>);
  }
  T mean = sum<T>(a) / F;
  along = sum<T>(b) / F;
  for (int j = 0; j < NV<T>; ++j)
    store<T>(out + j * W<T>, (load<T>(q + j * W<T>) - mean - load<T>(x + j * W<T>) * along) * r);
}

// bars of a normalised row: to its input; hat = gamma y^, bar = gamma y-, dot = x', along_dot = mean(x c')
template <class T>
inline void norm_bar(const T* hat, const T* bar, const T* x, T r, const T* dot, T along_dot, T* to_hat, T* to_bar) {
  T along_hat, along_bar;
  through_norm(hat, x, r, to_hat, along_hat);
  through_norm(bar, x, r, to_bar, along_bar);
  V<T> s{};
  for (int j = 0; j < NV<T>; ++j) s += load<T>(hat + j * W<T>) * load<T>(dot + j * W<T>);
  T mixed = sum<T>(s) / F;
  for (int k = 0; k < F; ++k) to_bar[k] -= r * (x[k] * mixed + to_hat[k] * along_dot + dot[k] * along_hat);
}

// --- gated MLPs, n <= RB rows at a time; h and what depends on it have core and gate side by side ---

template <class T> inline void silu_rows(int n, const T* h, T* a, int width = F2) {
  for (int k = 0; k < n * width; k += W<T>) {
    V<T> v = load<T>(h + k);
    store<T>(a + k, v * sigmoid<T>(v));
  }
}
template <class T> inline V<T> slope_of(V<T> h, V<T> s) { return s + h * s * (T(1) - s); }
template <class T> inline V<T> curvature_of(V<T> h, V<T> s) { return s * (T(1) - s) * (T(2) + h * (T(1) - T(2) * s)); }

template <class T> void times_slope(int n, const T* from, const T* h, T* to, int width = F2) {
  for (int k = 0; k < n * width; k += W<T>) {
    V<T> v = load<T>(h + k);
    store<T>(to + k, load<T>(from + k) * slope_of<T>(v, sigmoid<T>(v)));
  }
}

// normalised rows x and their inverse deviations r, of the first layer's rows h
template <class T> void gate_norms(const Gate<T>& g, int n, const T* h, T* x, T* r) {
  if (g.second) {
    T a[RB * F2];
    silu_rows(n, h, a);
    for (int side = 0; side < 2; ++side)
      product<T>(n, a + side * F, F2, g.second_t[side], F, x + side * F, F2, F, g.second_bias[side]);
  }
  for (int k = 0; k < 2 * n; ++k) normalise((g.second ? x : h) + k * F, x + k * F, r[k]);
}

template <class T> void gate_values(const Gate<T>& g, int n, const T* h, T* x, T* r, T* m) {
  gate_norms(g, n, h, x, r);
  for (int i = 0; i < n; ++i) {
    const T* to = x + i * F2;
    for (int j = 0; j < F; j += W<T>) {
      V<T> u = load<T>(to + j) * load<T>(g.gamma[0] + j) + load<T>(g.beta[0] + j);
      V<T> v = load<T>(to + F + j) * load<T>(g.gamma[1] + j) + load<T>(g.beta[1] + j);
      // u / ((1 + e^-u)(1 + e^-v)): one division
      store<T>(m + i * F + j, u / ((T(1) + exponential<T>(-u)) * (T(1) + exponential<T>(-v))));
    }
  }
}

// value and slopes of m = silu(u) sigmoid(v)
template <class T> struct Bent {
  V<T> m, m_u, m_v, m_uu, m_uv, m_vv;
  Bent(const Gate<T>& g, const T* x, int j) {
    V<T> u = load<T>(x + j) * load<T>(g.gamma[0] + j) + load<T>(g.beta[0] + j);
    V<T> v = load<T>(x + F + j) * load<T>(g.gamma[1] + j) + load<T>(g.beta[1] + j);
    V<T> s = sigmoid<T>(u), b = sigmoid<T>(v), f = u * s, slope = slope_of<T>(u, s), steep = b * (T(1) - b);
    m = f * b;
    m_u = slope * b;
    m_v = f * steep;
    m_uu = curvature_of<T>(u, s) * b;
    m_uv = slope * steep;
    m_vv = m_v * (T(1) - T(2) * b);
  }
};

// from hats of messages and their weights to hats of the second layer's input (a^) and of the first layer (h^)
template <class T>
void gate_hats(const Gate<T>& g, int n, const T* h, const T* x, const T* r, const T* to_message, const T* w, T* to_w,
               T* a_hat, T* h_hat) {
  T c[RB * F2], q[F2], along;
  T* inner = g.second ? c : a_hat;
  for (int i = 0; i < n; ++i) {
    const T* row = x + i * F2;
    for (int j = 0; j < F; j += W<T>) {
      Bent<T> bent(g, row, j);
      V<T> hat = load<T>(to_message + i * F + j);
      if (w) {
        store<T>(to_w + i * F + j, load<T>(to_w + i * F + j) + hat * bent.m);
        hat *= load<T>(w + i * F + j);
      }
      store<T>(q + j, hat * bent.m_u * load<T>(g.gamma[0] + j));
      store<T>(q + F + j, hat * bent.m_v * load<T>(g.gamma[1] + j));
    }
    for (int side = 0; side < 2; ++side)
      through_norm(q + side * F, row + side * F, r[2 * i + side], inner + i * F2 + side * F, along);
  }
  if (!g.second) {
    if (h_hat != a_hat) std::memcpy(h_hat, a_hat, n * F2 * sizeof(T));
    return;
  }
  for (int side = 0; side < 2; ++side) product<T>(n, c + side * F, F2, g.second_matrix[side], F, a_hat + side * F, F2);
  times_slope(n, a_hat, h, h_hat);
}

// along the direction: x', mean(x c'), and the change of messages before weights; m is made once more
template <class T>
void gate_dots(const Gate<T>& g, int n, const T* h, const T* x, const T* r, const T* h_dot, T* x_dot, T* along, T* m,
               T* m_dot) {
  T a[RB * F2];
  const T* inner = h_dot;
  if (g.second) {
    times_slope(n, h_dot, h, a);
    for (int side = 0; side < 2; ++side) product<T>(n, a + side * F, F2, g.second_t[side], F, x_dot + side * F, F2);
    inner = x_dot;
  }
  for (int i = 0; i < n; ++i) {
    T* dot = x_dot + i * F2;
    for (int side = 0; side < 2; ++side)
      through_norm(inner + i * F2 + side * F, x + i * F2 + side * F, r[2 * i + side], dot + side * F, along[2 * i + side]);
    for (int j = 0; j < F; j += W<T>) {
      Bent<T> bent(g, x + i * F2, j);
      V<T> u = load<T>(dot + j) * load<T>(g.gamma[0] + j), v = load<T>(dot + F + j) * load<T>(g.gamma[1] + j);
      store<T>(m + i * F + j, bent.m);
      store<T>(m_dot + i * F + j, bent.m_u * u + bent.m_v * v);
    }
  }
}

// bars of messages to those of the first layer, and slopes of the gate's own parameters; h^ is made once more
template <class T>
void gate_bars(const Gate<T>& g, GateSlopes<T>& to, int n, const T* h, const T* x, const T* r, const T* h_dot,
               const T* x_dot, const T* along, const T* a_hat, const T* message_hat, const T* message_bar, const T* w,
               const T* w_dot, T* w_bar, T* h_hat, T* h_bar) {
  T c_hat[RB * F2], c_bar[RB * F2], a[RB * F2], a_dot[RB * F2], hat[F2], bar[F2];
  T* inner = g.second ? c_bar : h_bar;
  for (int i = 0; i < n; ++i) {
    const T *row = x + i * F2, *dot = x_dot + i * F2;
    for (int j = 0; j < F; j += W<T>) {
      Bent<T> bent(g, row, j);
      V<T> gamma_u = load<T>(g.gamma[0] + j), gamma_v = load<T>(g.gamma[1] + j);
      V<T> x_u = load<T>(row + j), x_v = load<T>(row + F + j), dot_u = load<T>(dot + j), dot_v = load<T>(dot + F + j);
      V<T> u_dot = dot_u * gamma_u, v_dot = dot_v * gamma_v;
      V<T> m_hat = load<T>(message_hat + i * F + j), m_bar = load<T>(message_bar + i * F + j);
      if (w) {
        V<T> weight = load<T>(w + i * F + j), change = bent.m_u * u_dot + bent.m_v * v_dot;
        store<T>(w_bar + i * F + j, load<T>(w_bar + i * F + j) + m_bar * bent.m + m_hat * change);
        m_bar = m_bar * weight + m_hat * load<T>(w_dot + i * F + j);
        m_hat *= weight;
      }
      V<T> u_hat = m_hat * bent.m_u, v_hat = m_hat * bent.m_v;
      V<T> u_bar = m_bar * bent.m_u + m_hat * (bent.m_uu * u_dot + bent.m_uv * v_dot);
      V<T> v_bar = m_bar * bent.m_v + m_hat * (bent.m_uv * u_dot + bent.m_vv * v_dot);
      store<T>(to.gamma[0] + j, load<T>(to.gamma[0] + j) + u_bar * x_u + u_hat * dot_u);
      store<T>(to.gamma[1] + j, load<T>(to.gamma[1] + j) + v_bar * x_v + v_hat * dot_v);
      store<T>(to.beta[0] + j, load<T>(to.beta[0] + j) + u_bar);
      store<T>(to.beta[1] + j, load<T>(to.beta[1] + j) + v_bar);
      store<T>(hat + j, u_hat * gamma_u);
      store<T>(hat + F + j, v_hat * gamma_v);
      store<T>(bar + j, u_bar * gamma_u);
      store<T>(bar + F + j, v_bar * gamma_v);
    }
    for (int side = 0; side < 2; ++side)
      norm_bar(hat + side * F, bar + side * F, row + side * F, r[2 * i + side], dot + side * F, along[2 * i + side],
               c_hat + i * F2 + side * F, inner + i * F2 + side * F);
  }
  if (!g.second) {
    std::memcpy(h_hat, a_hat, n * F2 * sizeof(T));
    return;
  }
  for (int k = 0; k < n * F2; k += W<T>) {
    V<T> v = load<T>(h + k), s = sigmoid<T>(v), slope = slope_of<T>(v, s);
    store<T>(a + k, v * s);
    store<T>(a_dot + k, load<T>(h_dot + k) * slope);
    store<T>(h_hat + k, load<T>(a_hat + k) * slope);
  }
  for (int side = 0; side < 2; ++side) {
    int s = side * F;
    outer<T>(n, c_bar + s, F2, a + s, F2, to.second[side], F);
    outer<T>(n, c_hat + s, F2, a_dot + s, F2, to.second[side], F);
    add_columns(n, c_bar + s, F2, to.second_bias[side]);
    product<T>(n, c_bar + s, F2, g.second_matrix[side], F, h_bar + s, F2);
  }
  for (int k = 0; k < n * F2; k += W<T>) {
    V<T> v = load<T>(h + k), s = sigmoid<T>(v);
    store<T>(h_bar + k, load<T>(h_bar + k) * slope_of<T>(v, s) +
                            load<T>(a_hat + k) * curvature_of<T>(v, s) * load<T>(h_dot + k));
  }
}

// --- one batch ---

template <class T> struct Rows {  // of one gate: values, hats, dots
  T *h, *x, *r, *a_hat, *h_dot, *x_dot, *along;  // x and r: null where they are made once more
  T *total, *total_dot;          // sums of messages at their receivers
  T *out_hat, *total_hat;        // hats of what the sums are added to, and of the sums
  T *table_hat[3];               // hats of the first layer's tables
  T *message_hat;                // of angles only
};

template <class T> struct Batch {
  const Network<T>& net;
  std::unique_ptr<Memory> memory = borrow();
  Team team;
  bool train, keeps_norms;
  int n_atoms, n_bonds, n_short = 0, n_pairs = 0, n_crystals;
  const int64_t *z, *owners;
  int *first, *second, *edge_start, *edges, *pair_one, *pair_two, *pair_atom, *pair_start, *walk_start, *walks;
  T *vectors, *lengths, *signs, *angles;
  double *unit, *cosines;  // of straight angles a float would keep no slope
  T *features[5], *features_dot[5], *shorts[4], *shorts_dot[4], *bonds, *bonds_dot, *weights, *weights_dot, *short_weights,
      *short_weights_dot, *turns[3], *turns_dot[3];
  T *bonds_hat, *weights_hat, *basis_hat, *pair_hat, *turn_hat, *turn_hat0, *short_hat, *short_basis_hat, *wave_hat,
      *vector_hat;
  T *read[3], *read_hat[3], *read_dot[3], *read_x, *read_r, *read_x_dot, *read_along, *norm_hat;
  T *length_dot, *unit_dot, *turn_dot;
  Rows<T> atom_rows[4], bond_rows[3], angle_rows[2];
  T *scratch;  // rows of first layers, until they are summed

  template <class U> U* take(size_t n) { return static_cast<U*>(memory->take(n * sizeof(U))); }
  T* rows(size_t n, int width = F) { return take<T>(n * width); }
  T* zeros(size_t n, int width = F) {
    T* p = rows(n, width);
    std::memset(p, 0, n * width * sizeof(T));
    return p;
  }

  Batch(const Network<T>& network, int n_threads, bool train, int n_atoms, int n_bonds, int n_crystals, const int64_t* z,
        const int64_t* owners, const int64_t* ends, const T* given, const T* given_lengths)
      : net(network), team(n_threads), train(train), n_atoms(n_atoms), n_bonds(n_bonds), n_crystals(n_crystals), z(z),
        owners(owners) {
    sort_bonds(ends, given, given_lengths);
    find_pairs();
    // 4 gates of bonds and 5 of pairs, each both ways; written and read, more would cost what it saves
    keeps_norms = train || (8 * size_t(n_bonds) + 10 * size_t(n_pairs)) * F2 * sizeof(T) <= KEPT / 2;
  }
  ~Batch() { give_back(std::move(memory)); }

  // short bonds first, each kind by its first atom
  void sort_bonds(const int64_t* ends, const T* given, const T* given_lengths) {
    first = take<int>(n_bonds);
    second = take<int>(n_bonds);
    vectors = rows(n_bonds, 3);
    lengths = rows(n_bonds, 1);
    std::vector<int> start(2 * n_atoms + 1);
    std::vector<int> key(n_bonds);
    for (int b = 0; b < n_bonds; ++b) {
      bool is_long = !(given_lengths[b] <= net.short_radial.cutoff);
      n_short += !is_long;
      key[b] = int(ends[2 * b]) + is_long * n_atoms;
      ++start[key[b] + 1];
    }
    for (int k = 0; k < 2 * n_atoms; ++k) start[k + 1] += start[k];
    edge_start = take<int>(n_atoms + 1);
    std::memset(edge_start, 0, (n_atoms + 1) * sizeof(int));
    for (int b = 0; b < n_bonds; ++b) {
      int to = start[key[b]]++;
      first[to] = int(ends[2 * b]);
      second[to] = int(ends[2 * b + 1]);
      std::memcpy(vectors + 3 * to, given + 3 * b, 3 * sizeof(T));
      lengths[to] = given_lengths[b];
    }
    edges = take<int>(2 * n_bonds);
    sort_rows(n_bonds, n_atoms, first, second, edge_start, edges);
  }

  // rows k and n + k by their receivers one[k] and two[k]
  static void sort_rows(int n, int n_receivers, const int* one, const int* two, int* start, int* sorted) {
    std::memset(start, 0, (n_receivers + 1) * sizeof(int));
    for (int k = 0; k < n; ++k) ++start[one[k] + 1], ++start[two[k] + 1];
    for (int k = 0; k < n_receivers; ++k) start[k + 1] += start[k];
    std::vector<int> at(start, start + n_receivers);
    for (int k = 0; k < n; ++k) sorted[at[one[k]]++] = k;
    for (int k = 0; k < n; ++k) sorted[at[two[k]]++] = n + k;
  }

  // each two short bonds that leave one atom
  void find_pairs() {
    std::vector<int> start(n_atoms + 1), leaving(2 * n_short);
    sort_rows(n_short, n_atoms, first, second, start.data(), leaving.data());
    pair_start = take<int>(n_atoms + 1);
    pair_start[0] = 0;
    for (int i = 0; i < n_atoms; ++i) {
      int degree = start[i + 1] - start[i];
      pair_start[i + 1] = pair_start[i] + degree * (degree - 1) / 2;
    }
    n_pairs = pair_start[n_atoms];
    pair_one = take<int>(n_pairs);
    pair_two = take<int>(n_pairs);
    pair_atom = take<int>(n_pairs);
    signs = rows(n_pairs, 1);
    int p = 0;
    for (int i = 0; i < n_atoms; ++i)
      for (int a = start[i]; a < start[i + 1]; ++a)
        for (int b = a + 1; b < start[i + 1]; ++b, ++p) {
          int one = leaving[a], two = leaving[b];
          pair_one[p] = one % n_short;
          pair_two[p] = two % n_short;
          pair_atom[p] = i;
          signs[p] = (one < n_short) == (two < n_short) ? 1 : -1;
        }
    walk_start = take<int>(n_short + 1);
    walks = take<int>(2 * n_pairs);
    if (n_pairs) sort_rows(n_pairs, n_short, pair_one, pair_two, walk_start, walks);
  }

  // --- sums at receivers ---

  // to[k] = sum of the rows that k receives; turned: of the rows walked the other way
  void receive(int n, int n_rows, const int* start, const int* sorted, const T* from, T* to, int width, bool turned = false) {
    team.each(n, [=](int a, int b) {
      for (int k = a; k < b; ++k) {
        T* sum = to + size_t(k) * width;
        std::memset(sum, 0, width * sizeof(T));
        for (int e = start[k]; e < start[k + 1]; ++e) {
          int row = sorted[e];
          if (turned) row = row < n_rows ? row + n_rows : row - n_rows;
          add_row(sum, from + size_t(row) * width, width);
        }
      }
    }, 16);
  }
  void to_atoms(const T* from, T* to, int width, bool turned = false) {
    receive(n_atoms, n_bonds, edge_start, edges, from, to, width, turned);
  }
  void to_shorts(const T* from, T* to, int width, bool turned = false) {
    receive(n_short, n_pairs, walk_start, walks, from, to, width, turned);
  }
  void pairs_to_atoms(const T* from, T* to) {
    team.each(n_atoms, [=, this](int a, int b) {
      for (int i = a; i < b; ++i) {
        std::memset(to + size_t(i) * F2, 0, F2 * sizeof(T));
        for (int way = 0; way < 2; ++way)
          for (int p = pair_start[i]; p < pair_start[i + 1]; ++p)
            add_row(to + size_t(i) * F2, from + size_t(way * n_pairs + p) * F2, F2);
      }
    }, 16);
  }

  // --- products with both sides of a first layer ---

  void to_table(const Gate<T>& g, int part, int n, const T* from, T* to, bool bias) {
    team.each(n, [=, &g](int a, int b) {
      for (int side = 0; side < 2; ++side)
        product<T>(b - a, from + size_t(a) * F, F, g.front(part, side), F, to + size_t(a) * F2 + side * F, F2, F,
                   bias ? g.bias[side] : nullptr);
    });
  }
  // to (n, 64) += from (n, 128) times the transposed first layer
  static void from_first(const Gate<T>& g, int part, int n, const T* from, T* to) {
    for (int side = 0; side < 2; ++side)
      product<T>(n, from + side * F, F2, g.back(part, side), g.ld(), to, F, F, nullptr, true);
  }
  void from_table(const Gate<T>& g, int part, int n, const T* from, T* to) {
    team.each(n, [=, &g](int a, int b) { from_first(g, part, b - a, from + size_t(a) * F2, to + size_t(a) * F); });
  }
  static void first_slopes(const Gate<T>& g, GateSlopes<T>& s, int part, int n, const T* bar, const T* x, const T* hat,
                           const T* x_dot) {
    for (int side = 0; side < 2; ++side) {
      outer<T>(n, bar + side * F, F2, x, F, s.first[side] + part * F, g.ld());
      if (x_dot) outer<T>(n, hat + side * F, F2, x_dot, F, s.first[side] + part * F, g.ld());
    }
  }
  void multiply(int n, const T* from, const T* matrix, T* to, bool add) {
    team.each(n, [=](int a, int b) {
      product<T>(b - a, from + size_t(a) * F, F, matrix, F, to + size_t(a) * F, F, F, nullptr, add);
    });
  }

  const T* bond_features(int k, int b, T* const* short_rows, const T* all_rows) const {
    return b < n_short ? short_rows[std::min(k, n_pairs ? 3 : 0)] + size_t(b) * F : all_rows + size_t(b) * F;
  }
  // a block of bonds' features before layer k: where they lie, or gathered
  const T* bond_block(int k, int a, int b, T* const* short_rows, const T* all_rows, T* buffer) const {
    if (b <= n_short || a >= n_short) return bond_features(k, a, short_rows, all_rows);
    for (int row = a; row < b; ++row)
      std::memcpy(buffer + (row - a) * F, bond_features(k, row, short_rows, all_rows), F * sizeof(T));
    return buffer;
  }

  // --- 1. values ---

  void values(T* site_energies, T* moments) {
    begin();
    for (int k = 0; k < N_CONV; ++k) {
      convolve_atoms(k);
      if (k < 3 && n_pairs) {
        convolve_bonds(k);
        if (k < 2) update_angles(k);
      }
    }
    for (int i = 0; i < n_atoms; ++i) {
      moments[i] = net.p[SITE + 1][0] + T(dot(net.p[SITE], features[3] + size_t(i) * F));
    }
    read_x = rows(n_atoms);
    read_r = rows(n_atoms, 1);
    for (int k = 0; k < 3; ++k) read[k] = rows(n_atoms);
    team.each(n_atoms, [=, this](int a, int b) {
      int n = b - a;
      T y[RB * F];
      for (int i = a; i < b; ++i) {
        normalise(features[4] + size_t(i) * F, read_x + size_t(i) * F, read_r[i]);
        for (int j = 0; j < F; ++j) y[(i - a) * F + j] = read_x[size_t(i) * F + j] * net.p[NORM][j] + net.p[NORM + 1][j];
      }
      for (int k = 0; k < 3; ++k) {
        product<T>(n, y, F, net.read_t[k], F, read[k] + size_t(a) * F, F, F, net.p[READ + 2 * k + 1]);
        silu_rows(n, read[k] + size_t(a) * F, y, F);
      }
      for (int i = a; i < b; ++i) {
        site_energies[i] = T(net.p[READ + 7][0] + dot(net.p[READ + 6], y + (i - a) * F));
      }
    });
  }

  void begin() {
    for (int k = 0; k < 5; ++k) features[k] = rows(n_atoms);
    for (int i = 0; i < n_atoms; ++i) std::memcpy(features[0] + size_t(i) * F, net.p[ELEMENTS] + (z[i] - 1) * F, F * sizeof(T));
    bonds = rows(n_bonds);
    weights = rows(n_bonds);
    team.each(n_bonds, [=, this](int a, int b) {
      T basis[RB * NRP];
      for (int i = a; i < b; ++i) radial_values(net.long_radial, lengths[i], basis + (i - a) * NRP);
      product<T>(b - a, basis, NRP, net.to_bond_t, F, bonds + size_t(a) * F, F, NRP);
      product<T>(b - a, basis, NRP, net.to_weight_t, F, weights + size_t(a) * F, F, NRP);
    });
    shorts[0] = bonds;
    scratch = rows(2 * size_t(std::max(n_bonds, n_pairs)), F2);
    if (!n_pairs) return;
    for (int k = 1; k < 4; ++k) shorts[k] = rows(n_short);
    turns[0] = rows(n_pairs);
    for (int k = 1; k < 3; ++k) turns[k] = rows(2 * size_t(n_pairs));
    unit = take<double>(3 * size_t(n_short));
    short_weights = rows(n_short);
    cosines = take<double>(n_pairs);
    angles = rows(n_pairs, 1);
    for (int b = 0; b < n_short; ++b) {
      double v[3] = {vectors[3 * b], vectors[3 * b + 1], vectors[3 * b + 2]};
      double length = sizeof(T) < sizeof(double) ? std::sqrt(dot3(v, v)) : lengths[b];
      for (int d = 0; d < 3; ++d) unit[3 * b + d] = v[d] / length;
    }
    team.each(n_short, [=, this](int a, int b) {
      T basis[RB * NRP];
      for (int i = a; i < b; ++i) radial_values(net.short_radial, lengths[i], basis + (i - a) * NRP);
      product<T>(b - a, basis, NRP, net.to_short_t, F, short_weights + size_t(a) * F, F, NRP);
    });
    team.each(n_pairs, [=, this](int a, int b) {
      T waves[RB * NRP];
      for (int p = a; p < b; ++p) {
        const double *u = unit + 3 * pair_one[p], *v = unit + 3 * pair_two[p];
        cosines[p] = dot3(u, v) * signs[p] * (1 - 1e-6);  // CHGNet's own guard
        angles[p] = T(std::acos(cosines[p]));
        T* row = waves + (p - a) * NRP;
        T sine[NRP / 2], cosine[NRP / 2];
        phases(angles[p], sine, cosine);
        row[0] = T(1 / std::sqrt(2.f)) * scale();  // float32, as chgnet has it
        for (int k = 0; k < NA; ++k) {
          row[1 + k] = sine[k] * scale();
          row[1 + NA + k] = cosine[k] * scale();
        }
        row[NR] = 0;
      }
      product<T>(b - a, waves, NRP, net.to_angle_t, F, turns[0] + size_t(a) * F, F, NRP);
    });
  }

  static T scale() { return T(1 / std::sqrt(3.14159265358979323846)); }
  void phases(T angle, T* sine, T* cosine) const {
    for (int j = 0; j < NRP / 2; j += W<T>) {
      V<T> s, c;
      sine_cosine<T>(load<T>(net.freq_angle + j) * angle, s, c);
      store<T>(sine + j, s);
      store<T>(cosine + j, c);
    }
  }
  static void radial_values(const Radial<T>& f, T r, T* to) {
    T A, slope;
    f.amplitude(r, A, slope);
    for (int j = 0; j < NRP; j += W<T>) {
      V<T> s, c;
      sine_cosine<T>(load<T>(f.frequencies + j) * T(r / f.cutoff), s, c);
      store<T>(to + j, s * A);
    }
  }
  // slopes by the length
  static void radial_slopes(const Radial<T>& f, T r, T* to) {
    T A, slope;
    f.amplitude(r, A, slope);
    for (int j = 0; j < NRP; j += W<T>) {
      V<T> s, c, frequency = load<T>(f.frequencies + j);
      sine_cosine<T>(frequency * T(r / f.cutoff), s, c);
      store<T>(to + j, s * slope + c * frequency * T(A / f.cutoff));
    }
  }

  Rows<T> open(size_t n, size_t n_receivers) {
    Rows<T> g{};
    g.h = rows(n, F2);
    g.x = keeps_norms ? rows(n, F2) : nullptr;
    g.r = keeps_norms ? rows(n, 2) : nullptr;
    g.total = n_receivers ? rows(n_receivers) : nullptr;
    return g;
  }

  void convolve_atoms(int k) {
    const Gate<T>& g = net.atom[k];
    Rows<T>& at = atom_rows[k] = open(2 * size_t(n_bonds), n_atoms);
    T *one = rows(n_atoms, F2), *two = rows(n_atoms, F2), *messages = scratch;
    to_table(g, 0, n_atoms, features[k], one, true);
    to_table(g, 2, n_atoms, features[k], two, false);
    team.each(n_bonds, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      T buffer[RB * F], by_bond[RB * F2];
      const T* x = bond_block(k, a, b, shorts, bonds, buffer);
      for (int side = 0; side < 2; ++side) product<T>(n, x, F, g.front(1, side), F, by_bond + side * F, F2);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_bonds + a;
        const int *centre = way ? second : first, *other = way ? first : second;
        for (int i = 0; i < n; ++i)
          add_three(one + size_t(centre[a + i]) * F2, two + size_t(other[a + i]) * F2, by_bond + i * F2,
                    at.h + (start + i) * F2);
        Norms norms(at, start);
        gate_values(g, n, at.h + start * F2, norms.x, norms.r, messages + start * F);
        for (int i = 0; i < n * F; ++i) messages[start * F + i] *= weights[size_t(a) * F + i];
      }
    });
    to_atoms(messages, at.total, F);
    std::memcpy(features[k + 1], features[k], size_t(n_atoms) * F * sizeof(T));
    multiply(n_atoms, at.total, g.out_t, features[k + 1], true);
  }

  // a block of normalised rows: where they are kept, or in the block's own place
  struct Norms {
    T *x, *r, own_x[RB * F2], own_r[RB * 2];
    Norms(const Rows<T>& at, size_t start) : x(at.x ? at.x + start * F2 : own_x), r(at.r ? at.r + start * 2 : own_r) {}
    Norms(const Gate<T>& g, const Rows<T>& at, size_t start, int n) : Norms(at, start) {
      if (!at.x) gate_norms(g, n, at.h + start * F2, x, r);
    }
  };

  static void add_three(const T* a, const T* b, const T* c, T* to) {
    for (int j = 0; j < F2; ++j) to[j] = a[j] + b[j] + c[j];
  }

  // first layer of the pairs of a block: tables of first bond, second bond and atom, and products with angles
  void walk_rows(const Gate<T>& g, int k, int a, int b, const T* one, const T* two, const T* atom, T* const* turn_rows,
                 T* h) const {
    int n = b - a;
    T by_angle[RB * F2];
    for (int way = 0; way < 2; ++way) {
      size_t start = size_t(way) * n_pairs + a;
      if (k || !way)
        for (int side = 0; side < 2; ++side)
          product<T>(n, turn_rows[k] + (k ? start : size_t(a)) * F, F, g.front(2, side), F, by_angle + side * F, F2);
      const int *from = way ? pair_two : pair_one, *to = way ? pair_one : pair_two;
      for (int i = 0; i < n; ++i) {
        T* row = h + (start + i) * F2;
        if (one) {
          add_three(one + size_t(from[a + i]) * F2, two + size_t(to[a + i]) * F2, by_angle + i * F2, row);
          add_row(row, atom + size_t(pair_atom[a + i]) * F2, F2);
        } else {
          std::memcpy(row, by_angle + i * F2, F2 * sizeof(T));
        }
      }
    }
  }

  void pair_weights(int a, int b, T* to) const {
    for (int p = a; p < b; ++p) {
      const T *u = short_weights + size_t(pair_one[p]) * F, *v = short_weights + size_t(pair_two[p]) * F;
      for (int j = 0; j < F; ++j) to[(p - a) * F + j] = u[j] * v[j];
    }
  }
  void pair_weight_dots(int a, int b, T* to) const {
    for (int p = a; p < b; ++p) {
      size_t one = size_t(pair_one[p]) * F, two = size_t(pair_two[p]) * F;
      for (int j = 0; j < F; ++j)
        to[(p - a) * F + j] =
            short_weights_dot[one + j] * short_weights[two + j] + short_weights[one + j] * short_weights_dot[two + j];
    }
  }

  struct Tables {
    T *one, *two, *atom;
  };
  Tables walk_tables(const Gate<T>& g, const T* atoms, const T* short_rows, bool bias) {
    Tables t{rows(n_short, F2), rows(n_short, F2), rows(n_atoms, F2)};
    to_table(g, 0, n_short, short_rows, t.one, bias);
    to_table(g, 1, n_short, short_rows, t.two, false);
    to_table(g, 3, n_atoms, atoms, t.atom, false);
    return t;
  }

  void convolve_bonds(int k) {
    const Gate<T>& g = net.bond[k];
    Rows<T>& at = bond_rows[k] = open(2 * size_t(n_pairs), n_short);
    Tables t = walk_tables(g, features[k + 1], shorts[k], true);
    T* messages = scratch;
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      T w[RB * F];
      pair_weights(a, b, w);
      walk_rows(g, k, a, b, t.one, t.two, t.atom, turns, at.h);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        Norms norms(at, start);
        gate_values(g, b - a, at.h + start * F2, norms.x, norms.r, messages + start * F);
        for (int i = 0; i < (b - a) * F; ++i) messages[start * F + i] *= w[i];
      }
    });
    to_shorts(messages, at.total, F);
    std::memcpy(shorts[k + 1], shorts[k], size_t(n_short) * F * sizeof(T));
    multiply(n_short, at.total, g.out_t, shorts[k + 1], true);
  }

  void update_angles(int k) {
    const Gate<T>& g = net.angle[k];
    Rows<T>& at = angle_rows[k] = open(2 * size_t(n_pairs), 0);
    Tables t = walk_tables(g, features[k + 1], shorts[k + 1], true);
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      walk_rows(g, k, a, b, t.one, t.two, t.atom, turns, at.h);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        T* after = turns[k + 1] + start * F;
        Norms norms(at, start);
        gate_values(g, b - a, at.h + start * F2, norms.x, norms.r, after);
        add_row(after, turns[k] + (k ? start : size_t(a)) * F, (b - a) * F);
      }
    });
  }

  // --- 2. hats ---

  void hats(T* forces, T* virials) {
    T* hat = zeros(n_atoms);
    bonds_hat = zeros(n_bonds);
    weights_hat = zeros(n_bonds);
    if (n_pairs) {
      pair_hat = zeros(n_pairs);
      turn_hat = zeros(2 * size_t(n_pairs));
      turn_hat0 = zeros(n_pairs);
    }
    for (int k = 0; k < 3; ++k) read_hat[k] = rows(n_atoms);
    norm_hat = rows(n_atoms);
    team.each(n_atoms, [=, this](int a, int b) {
      int n = b - a;
      T y[RB * F], along;
      for (int i = 0; i < n; ++i) std::memcpy(y + i * F, net.p[READ + 6], F * sizeof(T));
      for (int k = 2; k >= 0; --k) {
        times_slope(n, y, read[k] + size_t(a) * F, read_hat[k] + size_t(a) * F, F);
        product<T>(n, read_hat[k] + size_t(a) * F, F, net.p[READ + 2 * k], F, y, F);
      }
      for (int i = a; i < b; ++i) {
        T* q = norm_hat + size_t(i) * F;
        for (int j = 0; j < F; ++j) q[j] = y[(i - a) * F + j] * net.p[NORM][j];
        through_norm(q, read_x + size_t(i) * F, read_r[i], hat + size_t(i) * F, along);
      }
    });
    for (int k = N_CONV - 1; k >= 0; --k) {
      if (k < 3 && n_pairs) {
        if (k < 2) angles_hat(k, hat);
        bonds_hat_of(k, hat);
      }
      atoms_hat(k, hat);
    }
    bases_hat();
    std::fill(forces, forces + 3 * n_atoms, T(0));
    std::fill(virials, virials + 9 * n_crystals, T(0));
    for (int b = 0; b < n_bonds; ++b) {
      T* virial = virials + 9 * owners[first[b]];
      for (int d = 0; d < 3; ++d) {
        T slope = vector_hat[3 * b + d];
        forces[3 * first[b] + d] -= slope;
        forces[3 * second[b] + d] += slope;
        for (int c = 0; c < 3; ++c) virial[3 * c + d] += vectors[3 * b + c] * slope;
      }
    }
  }

  T* kept(const T* from, size_t n) {
    T* to = rows(n);
    std::memcpy(to, from, n * F * sizeof(T));
    return to;
  }
  void sum_ways(int n, const T* one, const T* two, T* to, int width) const {
    for (int i = 0; i < n * width; ++i) to[i] = one[i] + two[i];
  }

  void atoms_hat(int k, T* hat) {
    const Gate<T>& g = net.atom[k];
    Rows<T>& at = atom_rows[k];
    at.out_hat = train ? kept(hat, n_atoms) : nullptr;
    T* to_total = at.total_hat = rows(n_atoms);
    at.a_hat = train ? rows(2 * size_t(n_bonds), F2) : nullptr;
    multiply(n_atoms, hat, g.out, to_total, false);
    team.each(n_bonds, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      T message[RB * F], spare[RB * F2], both[RB * F2];
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_bonds + a;
        const int* centre = way ? second : first;
        for (int i = 0; i < n; ++i)
          std::memcpy(message + i * F, to_total + size_t(centre[a + i]) * F, F * sizeof(T));
        Norms norms(g, at, start, n);
        gate_hats(g, n, at.h + start * F2, norms.x, norms.r, message, weights + size_t(a) * F,
                  weights_hat + size_t(a) * F, train ? at.a_hat + start * F2 : spare, scratch + start * F2);
      }
      sum_ways(n, scratch + size_t(a) * F2, scratch + (size_t(n_bonds) + a) * F2, both, F2);
      from_first(g, 1, n, both, bonds_hat + size_t(a) * F);
    });
    if (!k) return;  // the elements' features do not depend on positions
    for (int j = 0; j < 2; ++j) {
      at.table_hat[j] = rows(n_atoms, F2);
      to_atoms(scratch, at.table_hat[j], F2, j == 1);
      from_table(g, 2 * j, n_atoms, at.table_hat[j], hat);
    }
  }

  void walk_hats(const Gate<T>& g, Rows<T>& at, T* hat) {
    for (int j = 0; j < 2; ++j) {
      at.table_hat[j] = rows(n_short, F2);
      to_shorts(scratch, at.table_hat[j], F2, j == 1);
      from_table(g, j, n_short, at.table_hat[j], bonds_hat);
    }
    at.table_hat[2] = rows(n_atoms, F2);
    pairs_to_atoms(scratch, at.table_hat[2]);
    from_table(g, 3, n_atoms, at.table_hat[2], hat);
  }
  // gradients of the angles from those of the first layer; of a pair's first features both ways are summed
  void to_turns(const Gate<T>& g, int k, int a, int b, const T* from, T* to, T* to_first) const {
    int n = b - a;
    if (k) {
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        from_first(g, 2, n, from + start * F2, to + start * F);
      }
      return;
    }
    T both[RB * F2];
    sum_ways(n, from + size_t(a) * F2, from + (size_t(n_pairs) + a) * F2, both, F2);
    from_first(g, 2, n, both, to_first + size_t(a) * F);
  }

  void bonds_hat_of(int k, T* hat) {
    const Gate<T>& g = net.bond[k];
    Rows<T>& at = bond_rows[k];
    at.out_hat = train ? kept(bonds_hat, n_short) : nullptr;
    T* to_total = at.total_hat = rows(n_short);
    at.a_hat = train ? rows(2 * size_t(n_pairs), F2) : nullptr;
    multiply(n_short, bonds_hat, g.out, to_total, false);
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      T message[RB * F], spare[RB * F2], w[RB * F];
      pair_weights(a, b, w);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        const int* receiver = way ? pair_two : pair_one;
        for (int i = 0; i < n; ++i)
          std::memcpy(message + i * F, to_total + size_t(receiver[a + i]) * F, F * sizeof(T));
        Norms norms(g, at, start, n);
        gate_hats(g, n, at.h + start * F2, norms.x, norms.r, message, w, pair_hat + size_t(a) * F,
                  train ? at.a_hat + start * F2 : spare, scratch + start * F2);
      }
      to_turns(g, k, a, b, scratch, turn_hat, turn_hat0);
    });
    walk_hats(g, at, hat);
  }

  void angles_hat(int k, T* hat) {
    const Gate<T>& g = net.angle[k];
    Rows<T>& at = angle_rows[k];
    at.message_hat = train ? kept(turn_hat, 2 * size_t(n_pairs)) : turn_hat;
    at.a_hat = train ? rows(2 * size_t(n_pairs), F2) : nullptr;
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        Norms norms(g, at, start, n);
        gate_hats<T>(g, n, at.h + start * F2, norms.x, norms.r, at.message_hat + start * F, nullptr, nullptr,
                     train ? at.a_hat + start * F2 : scratch + start * F2, scratch + start * F2);
      }
      if (!k) sum_ways(n, turn_hat + size_t(a) * F, turn_hat + (size_t(n_pairs) + a) * F, turn_hat0 + size_t(a) * F, F);
      to_turns(g, k, a, b, scratch, turn_hat, turn_hat0);
    });
    walk_hats(g, at, hat);
  }

  void bases_hat() {
    vector_hat = rows(n_bonds, 3);
    basis_hat = rows(n_bonds, NRP);
    team.each(n_bonds, [=, this](int a, int b) {
      T slopes[NRP];
      T* hat = basis_hat + size_t(a) * NRP;
      product<T, NRP>(b - a, bonds_hat + size_t(a) * F, F, net.to_bond_p, NRP, hat, NRP);
      product<T, NRP>(b - a, weights_hat + size_t(a) * F, F, net.to_weight_p, NRP, hat, NRP, F, nullptr, true);
      for (int i = a; i < b; ++i) {
        radial_slopes(net.long_radial, lengths[i], slopes);
        T s = 0;
        for (int j = 0; j < NR; ++j) s += slopes[j] * hat[(i - a) * NRP + j];
        for (int d = 0; d < 3; ++d) vector_hat[3 * i + d] = s * vectors[3 * i + d] / lengths[i];
      }
    });
    if (!n_pairs) return;
    wave_hat = rows(n_pairs, NRP);
    T* to_cosine = rows(n_pairs, 1);
    team.each(n_pairs, [=, this](int a, int b) {
      product<T, NRP>(b - a, turn_hat0 + size_t(a) * F, F, net.to_angle_p, NRP, wave_hat + size_t(a) * NRP, NRP);
      for (int p = a; p < b; ++p) {
        T sine[NRP / 2], cosine[NRP / 2], slope = 0;
        phases(angles[p], sine, cosine);
        const T* hat = wave_hat + size_t(p) * NRP;
        for (int j = 0; j < NA; ++j) slope += net.freq_angle[j] * (hat[1 + j] * cosine[j] - hat[1 + NA + j] * sine[j]);
        to_cosine[p] = T(-slope * scale() * signs[p] * (1 - 1e-6) * inverse_sine(cosines[p]));
      }
    });
    short_hat = rows(n_short);
    short_basis_hat = rows(n_short, NRP);
    team.each(n_short, [=, this](int a, int b) {
      for (int i = a; i < b; ++i) {
        T* to = short_hat + size_t(i) * F;
        double along[3] = {0, 0, 0};
        std::memset(to, 0, F * sizeof(T));
        for (int e = walk_start[i]; e < walk_start[i + 1]; ++e) {
          int p = walks[e] % n_pairs, other = walks[e] < n_pairs ? pair_two[p] : pair_one[p];
          for (int j = 0; j < F; ++j) to[j] += pair_hat[size_t(p) * F + j] * short_weights[size_t(other) * F + j];
          for (int d = 0; d < 3; ++d) along[d] += to_cosine[p] * unit[3 * other + d];
        }
        double dot = 0;
        for (int d = 0; d < 3; ++d) dot += along[d] * unit[3 * i + d];
        for (int d = 0; d < 3; ++d) vector_hat[3 * i + d] += (along[d] - dot * unit[3 * i + d]) / lengths[i];
      }
      T slopes[NRP];
      product<T, NRP>(b - a, short_hat + size_t(a) * F, F, net.to_short_p, NRP, short_basis_hat + size_t(a) * NRP, NRP);
      for (int i = a; i < b; ++i) {
        radial_slopes(net.short_radial, lengths[i], slopes);
        T s = 0;
        for (int j = 0; j < NR; ++j) s += slopes[j] * short_basis_hat[size_t(i) * NRP + j];
        for (int d = 0; d < 3; ++d) vector_hat[3 * i + d] += s * unit[3 * i + d];
      }
    }, 16);
  }

  // --- 3. dots along a direction of the vectors ---

  void dots(const T* force_bar, const T* virial_bar) {
    length_dot = rows(n_bonds, 1);
    T* direction = rows(n_bonds, 3);
    for (int b = 0; b < n_bonds; ++b) {
      const T *v = vectors + 3 * b, *m = virial_bar + 9 * owners[first[b]];
      T* q = direction + 3 * b;
      for (int d = 0; d < 3; ++d)
        q[d] = force_bar[3 * second[b] + d] - force_bar[3 * first[b] + d] + v[0] * m[d] + v[1] * m[3 + d] + v[2] * m[6 + d];
      length_dot[b] = (q[0] * v[0] + q[1] * v[1] + q[2] * v[2]) / lengths[b];
    }
    features_dot[0] = zeros(n_atoms);
    for (int k = 1; k < 5; ++k) features_dot[k] = rows(n_atoms);
    bonds_dot = rows(n_bonds);
    weights_dot = rows(n_bonds);
    shorts_dot[0] = bonds_dot;
    for (int a = 0; a < n_bonds; a += RB) {
      int b = std::min(n_bonds, a + RB);
      T basis[RB * NRP];
      radial_dots(net.long_radial, a, b, basis);
      product<T>(b - a, basis, NRP, net.to_bond_t, F, bonds_dot + size_t(a) * F, F, NRP);
      product<T>(b - a, basis, NRP, net.to_weight_t, F, weights_dot + size_t(a) * F, F, NRP);
    }
    if (n_pairs) begin_walk_dots(direction);
    for (int k = 0; k < N_CONV; ++k) {
      atoms_dot(k);
      if (k < 3 && n_pairs) {
        bonds_dot_of(k);
        if (k < 2) angles_dot(k);
      }
    }
    read_x_dot = rows(n_atoms);
    read_along = rows(n_atoms, 1);
    for (int k = 0; k < 3; ++k) read_dot[k] = rows(n_atoms);
    for (int a = 0; a < n_atoms; a += RB) {
      int b = std::min(n_atoms, a + RB), n = b - a;
      T y[RB * F];
      for (int i = a; i < b; ++i) {
        T* dot = read_x_dot + size_t(i) * F;
        through_norm(features_dot[4] + size_t(i) * F, read_x + size_t(i) * F, read_r[i], dot, read_along[i]);
        for (int j = 0; j < F; ++j) y[(i - a) * F + j] = dot[j] * net.p[NORM][j];
      }
      for (int k = 0; k < 3; ++k) {
        product<T>(n, y, F, net.read_t[k], F, read_dot[k] + size_t(a) * F, F);
        times_slope(n, read_dot[k] + size_t(a) * F, read[k] + size_t(a) * F, y, F);
      }
    }
  }

  void radial_dots(const Radial<T>& f, int a, int b, T* to) const {
    for (int i = a; i < b; ++i) {
      radial_slopes(f, lengths[i], to + (i - a) * NRP);
      for (int j = 0; j < NRP; ++j) to[(i - a) * NRP + j] *= length_dot[i];
    }
  }

  void wave_dots(int a, int b, T* to) const {
    for (int p = a; p < b; ++p) {
      T sine[NRP / 2], cosine[NRP / 2];
      phases(angles[p], sine, cosine);
      T* row = to + (p - a) * NRP;
      row[0] = row[NR] = 0;
      for (int j = 0; j < NA; ++j) {
        T factor = net.freq_angle[j] * turn_dot[p] * scale();
        row[1 + j] = cosine[j] * factor;
        row[1 + NA + j] = -sine[j] * factor;
      }
    }
  }

  void begin_walk_dots(const T* direction) {
    for (int k = 1; k < 4; ++k) shorts_dot[k] = rows(n_short);
    turns_dot[0] = rows(n_pairs);
    for (int k = 1; k < 3; ++k) turns_dot[k] = rows(2 * size_t(n_pairs));
    unit_dot = rows(n_short, 3);
    turn_dot = rows(n_pairs, 1);
    short_weights_dot = rows(n_short);
    for (int b = 0; b < n_short; ++b)
      for (int d = 0; d < 3; ++d)
        unit_dot[3 * b + d] = (direction[3 * b + d] - unit[3 * b + d] * length_dot[b]) / lengths[b];
    for (int a = 0; a < n_short; a += RB) {
      int b = std::min(n_short, a + RB);
      T basis[RB * NRP];
      radial_dots(net.short_radial, a, b, basis);
      product<T>(b - a, basis, NRP, net.to_short_t, F, short_weights_dot + size_t(a) * F, F, NRP);
    }
    for (int a = 0; a < n_pairs; a += RB) {
      int b = std::min(n_pairs, a + RB);
      T waves[RB * NRP];
      for (int p = a; p < b; ++p) {
        size_t one = 3 * size_t(pair_one[p]), two = 3 * size_t(pair_two[p]);
        double dot = 0;
        for (int d = 0; d < 3; ++d) dot += unit_dot[one + d] * unit[two + d] + unit[one + d] * unit_dot[two + d];
        turn_dot[p] = T(-dot * signs[p] * (1 - 1e-6) * inverse_sine(cosines[p]));
      }
      wave_dots(a, b, waves);
      product<T>(b - a, waves, NRP, net.to_angle_t, F, turns_dot[0] + size_t(a) * F, F, NRP);
    }
  }

  void open_dots(Rows<T>& at, size_t n, size_t n_receivers) {
    at.h_dot = rows(n, F2);
    at.x_dot = rows(n, F2);
    at.along = rows(n, 2);
    at.total_dot = n_receivers ? rows(n_receivers) : nullptr;
  }

  void atoms_dot(int k) {
    const Gate<T>& g = net.atom[k];
    Rows<T>& at = atom_rows[k];
    open_dots(at, 2 * size_t(n_bonds), n_atoms);
    T *one = zeros(n_atoms, F2), *two = zeros(n_atoms, F2), *messages = scratch;
    if (k) {
      to_table(g, 0, n_atoms, features_dot[k], one, false);
      to_table(g, 2, n_atoms, features_dot[k], two, false);
    }
    team.each(n_bonds, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      T buffer[RB * F], by_bond[RB * F2], m[RB * F];
      const T* x = bond_block(k, a, b, shorts_dot, bonds_dot, buffer);
      for (int side = 0; side < 2; ++side) product<T>(n, x, F, g.front(1, side), F, by_bond + side * F, F2);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_bonds + a;
        const int *centre = way ? second : first, *other = way ? first : second;
        for (int i = 0; i < n; ++i)
          add_three(one + size_t(centre[a + i]) * F2, two + size_t(other[a + i]) * F2, by_bond + i * F2,
                    at.h_dot + (start + i) * F2);
        T* to = messages + start * F;
        gate_dots(g, n, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                  at.x_dot + start * F2, at.along + start * 2, m, to);
        for (int i = 0; i < n * F; ++i) to[i] = to[i] * weights[size_t(a) * F + i] + m[i] * weights_dot[size_t(a) * F + i];
      }
    });
    to_atoms(messages, at.total_dot, F);
    std::memcpy(features_dot[k + 1], features_dot[k], size_t(n_atoms) * F * sizeof(T));
    multiply(n_atoms, at.total_dot, g.out_t, features_dot[k + 1], true);
  }

  void bonds_dot_of(int k) {
    const Gate<T>& g = net.bond[k];
    Rows<T>& at = bond_rows[k];
    open_dots(at, 2 * size_t(n_pairs), n_short);
    Tables t = walk_tables(g, features_dot[k + 1], shorts_dot[k], false);
    T* messages = scratch;
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      int n = b - a;
      T w[RB * F], w_dot[RB * F], m[RB * F];
      pair_weights(a, b, w);
      pair_weight_dots(a, b, w_dot);
      walk_rows(g, k, a, b, t.one, t.two, t.atom, turns_dot, at.h_dot);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        T* to = messages + start * F;
        gate_dots(g, n, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                  at.x_dot + start * F2, at.along + start * 2, m, to);
        for (int i = 0; i < n * F; ++i) to[i] = to[i] * w[i] + m[i] * w_dot[i];
      }
    });
    to_shorts(messages, at.total_dot, F);
    std::memcpy(shorts_dot[k + 1], shorts_dot[k], size_t(n_short) * F * sizeof(T));
    multiply(n_short, at.total_dot, g.out_t, shorts_dot[k + 1], true);
  }

  void angles_dot(int k) {
    const Gate<T>& g = net.angle[k];
    Rows<T>& at = angle_rows[k];
    open_dots(at, 2 * size_t(n_pairs), 0);
    Tables t = walk_tables(g, features_dot[k + 1], shorts_dot[k + 1], false);
    team.each(n_pairs, [=, this, &g, &at](int a, int b) {
      T m[RB * F];
      walk_rows(g, k, a, b, t.one, t.two, t.atom, turns_dot, at.h_dot);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        T* after = turns_dot[k + 1] + start * F;
        gate_dots(g, b - a, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                  at.x_dot + start * F2, at.along + start * 2, m, after);
        add_row(after, turns_dot[k] + (k ? start : size_t(a)) * F, (b - a) * F);
      }
    });
  }

  // --- 4. bars ---

  struct Bars {
    T *atoms, *bonds, *weights, *pairs, *turns, *turns0;
  };

  void bars(const T* energy_bar, const T* moment_bar, Slopes<T>& to) {
    Bars bar{zeros(n_atoms), zeros(n_bonds), zeros(n_bonds), nullptr, nullptr, nullptr};
    if (n_pairs) {
      bar.pairs = zeros(n_pairs);
      bar.turns = zeros(2 * size_t(n_pairs));
      bar.turns0 = zeros(n_pairs);
    }
    read_bars(energy_bar, bar.atoms, to);
    for (int k = N_CONV - 1; k >= 0; --k) {
      if (k == 2)  // moments are read before the last convolution
        for (int i = 0; i < n_atoms; ++i) {
          for (int j = 0; j < F; ++j) {
            bar.atoms[size_t(i) * F + j] += moment_bar[i] * net.p[SITE][j];
            to.p[SITE][j] += moment_bar[i] * features[3][size_t(i) * F + j];
          }
          to.p[SITE + 1][0] += moment_bar[i];
        }
      if (k < 3 && n_pairs) {
        if (k < 2) angle_bars(k, bar, to.angle[k]);
        bond_bars(k, bar, to.bond[k]);
      }
      atom_bars(k, bar, to.atom[k]);
    }
    for (int i = 0; i < n_atoms; ++i) add_row(to.p[ELEMENTS] + (z[i] - 1) * F, bar.atoms + size_t(i) * F);
    basis_bars(bar, to);
  }

  void read_bars(const T* energy_bar, T* to_atoms_bar, Slopes<T>& to) {
    for (int a = 0; a < n_atoms; a += RB) {
      int b = std::min(n_atoms, a + RB), n = b - a;
      size_t at = size_t(a) * F;
      T y_hat[RB * F], y_bar[RB * F], z_bar[RB * F], y[RB * F], y_dot[RB * F], spare[F];
      silu_rows(n, read[2] + at, y, F);
      times_slope(n, read_dot[2] + at, read[2] + at, y_dot, F);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < F; ++j) {
          T e = energy_bar[a + i];
          y_hat[i * F + j] = net.p[READ + 6][j];
          y_bar[i * F + j] = e * net.p[READ + 6][j];
          to.p[READ + 6][j] += e * y[i * F + j] + y_dot[i * F + j];
        }
      for (int i = a; i < b; ++i) to.p[READ + 7][0] += energy_bar[i];
      for (int k = 2; k >= 0; --k) {
        const T *h = read[k] + at, *h_dot = read_dot[k] + at, *h_hat = read_hat[k] + at;
        for (int i = 0; i < n * F; i += W<T>) {
          V<T> v = load<T>(h + i), s = sigmoid<T>(v);
          store<T>(z_bar + i, load<T>(y_bar + i) * slope_of<T>(v, s) +
                                  load<T>(y_hat + i) * curvature_of<T>(v, s) * load<T>(h_dot + i));
        }
        if (k) {
          silu_rows(n, read[k - 1] + at, y, F);
          times_slope(n, read_dot[k - 1] + at, read[k - 1] + at, y_dot, F);
        } else {
          for (int i = 0; i < n * F; ++i) {
            y[i] = read_x[at + i] * net.p[NORM][i % F] + net.p[NORM + 1][i % F];
            y_dot[i] = read_x_dot[at + i] * net.p[NORM][i % F];
          }
        }
        outer<T>(n, z_bar, F, y, F, to.p[READ + 2 * k], F);
        outer<T>(n, h_hat, F, y_dot, F, to.p[READ + 2 * k], F);
        add_columns(n, z_bar, F, to.p[READ + 2 * k + 1]);
        product<T>(n, z_bar, F, net.p[READ + 2 * k], F, y_bar, F);
        product<T>(n, h_hat, F, net.p[READ + 2 * k], F, y_hat, F);
      }
      for (int i = a; i < b; ++i) {
        T* row = y_bar + (i - a) * F;
        const T *x = read_x + size_t(i) * F, *x_dot = read_x_dot + size_t(i) * F;
        for (int j = 0; j < F; ++j) {
          to.p[NORM][j] += row[j] * x[j] + y_hat[(i - a) * F + j] * x_dot[j];
          to.p[NORM + 1][j] += row[j];
          row[j] *= net.p[NORM][j];
        }
        norm_bar(norm_hat + size_t(i) * F, row, x, read_r[i], x_dot, read_along[i], spare, to_atoms_bar + size_t(i) * F);
      }
    }
  }

  // of the matrix after the sums over messages
  void out_slopes(int n, const Rows<T>& at, const T* bar, T* to) {
    outer<T>(n, bar, F, at.total, F, to, F);
    outer<T>(n, at.out_hat, F, at.total_dot, F, to, F);
  }

  void atom_bars(int k, Bars& bar, GateSlopes<T>& to) {
    const Gate<T>& g = net.atom[k];
    Rows<T>& at = atom_rows[k];
    T *total_bar = rows(n_atoms), *table = rows(n_atoms, F2);
    out_slopes(n_atoms, at, bar.atoms, to.out);
    multiply(n_atoms, bar.atoms, g.out, total_bar, false);
    for (int a = 0; a < n_bonds; a += RB) {
      int n = std::min(n_bonds, a + RB) - a;
      size_t here = size_t(a) * F;
      T hat[RB * F], up[RB * F], h_hat[2][RB * F2], both_hat[RB * F2], both[RB * F2], buffer[RB * F];
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_bonds + a;
        const int* centre = way ? second : first;
        for (int i = 0; i < n; ++i) {
          std::memcpy(hat + i * F, at.total_hat + size_t(centre[a + i]) * F, F * sizeof(T));
          std::memcpy(up + i * F, total_bar + size_t(centre[a + i]) * F, F * sizeof(T));
        }
        gate_bars(g, to, n, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                  at.x_dot + start * F2, at.along + start * 2, at.a_hat + start * F2, hat, up, weights + here,
                  weights_dot + here, bar.weights + here, h_hat[way], scratch + start * F2);
      }
      sum_ways(n, scratch + size_t(a) * F2, scratch + (size_t(n_bonds) + a) * F2, both, F2);
      sum_ways(n, h_hat[0], h_hat[1], both_hat, F2);
      const T* x = bond_block(k, a, a + n, shorts, bonds, buffer);
      for (int side = 0; side < 2; ++side) outer<T>(n, both + side * F, F2, x, F, to.first[side] + F, g.ld());
      x = bond_block(k, a, a + n, shorts_dot, bonds_dot, buffer);
      for (int side = 0; side < 2; ++side) outer<T>(n, both_hat + side * F, F2, x, F, to.first[side] + F, g.ld());
      from_first(g, 1, n, both, bar.bonds + here);
    }
    for (int j = 0; j < 2; ++j) {
      to_atoms(scratch, table, F2, j == 1);
      if (!j)
        for (int side = 0; side < 2; ++side) add_columns(n_atoms, table + side * F, F2, to.bias[side]);
      first_slopes(g, to, 2 * j, n_atoms, table, features[k], at.table_hat[j], k ? features_dot[k] : nullptr);
      from_table(g, 2 * j, n_atoms, table, bar.atoms);
    }
  }

  void walk_bars(const Gate<T>& g, GateSlopes<T>& to, Rows<T>& at, int k, const T* x, const T* x_dot, Bars& bar) {
    T *table = rows(std::max(n_short, n_atoms), F2);
    for (int j = 0; j < 2; ++j) {
      to_shorts(scratch, table, F2, j == 1);
      if (!j)
        for (int side = 0; side < 2; ++side) add_columns(n_short, table + side * F, F2, to.bias[side]);
      first_slopes(g, to, j, n_short, table, x, at.table_hat[j], x_dot);
      from_table(g, j, n_short, table, bar.bonds);
    }
    pairs_to_atoms(scratch, table);
    first_slopes(g, to, 3, n_atoms, table, features[k + 1], at.table_hat[2], features_dot[k + 1]);
    from_table(g, 3, n_atoms, table, bar.atoms);
  }

  // slopes of the first layer's angle part, and bars of the angles
  void turn_bars(const Gate<T>& g, GateSlopes<T>& to, int k, int a, int n, const T* const* h_hat, Bars& bar) {
    if (k) {
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        first_slopes(g, to, 2, n, scratch + start * F2, turns[k] + start * F, h_hat[way], turns_dot[k] + start * F);
      }
    } else {
      T both[RB * F2], both_hat[RB * F2];
      sum_ways(n, scratch + size_t(a) * F2, scratch + (size_t(n_pairs) + a) * F2, both, F2);
      sum_ways(n, h_hat[0], h_hat[1], both_hat, F2);
      first_slopes(g, to, 2, n, both, turns[0] + size_t(a) * F, both_hat, turns_dot[0] + size_t(a) * F);
    }
    to_turns(g, k, a, a + n, scratch, bar.turns, bar.turns0);
  }

  void bond_bars(int k, Bars& bar, GateSlopes<T>& to) {
    const Gate<T>& g = net.bond[k];
    Rows<T>& at = bond_rows[k];
    T* total_bar = rows(n_short);
    out_slopes(n_short, at, bar.bonds, to.out);
    multiply(n_short, bar.bonds, g.out, total_bar, false);
    for (int a = 0; a < n_pairs; a += RB) {
      int n = std::min(n_pairs, a + RB) - a;
      T hat[RB * F], up[RB * F], h_hat[2][RB * F2], w[RB * F], w_dot[RB * F];
      pair_weights(a, a + n, w);
      pair_weight_dots(a, a + n, w_dot);
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        const int* receiver = way ? pair_two : pair_one;
        for (int i = 0; i < n; ++i) {
          std::memcpy(hat + i * F, at.total_hat + size_t(receiver[a + i]) * F, F * sizeof(T));
          std::memcpy(up + i * F, total_bar + size_t(receiver[a + i]) * F, F * sizeof(T));
        }
        gate_bars(g, to, n, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                  at.x_dot + start * F2, at.along + start * 2, at.a_hat + start * F2, hat, up, w, w_dot,
                  bar.pairs + size_t(a) * F, h_hat[way], scratch + start * F2);
      }
      const T* hats[2] = {h_hat[0], h_hat[1]};
      turn_bars(g, to, k, a, n, hats, bar);
    }
    walk_bars(g, to, at, k, shorts[k], shorts_dot[k], bar);
  }

  void angle_bars(int k, Bars& bar, GateSlopes<T>& to) {
    const Gate<T>& g = net.angle[k];
    Rows<T>& at = angle_rows[k];
    for (int a = 0; a < n_pairs; a += RB) {
      int n = std::min(n_pairs, a + RB) - a;
      T h_hat[2][RB * F2];
      for (int way = 0; way < 2; ++way) {
        size_t start = size_t(way) * n_pairs + a;
        gate_bars<T>(g, to, n, at.h + start * F2, at.x + start * F2, at.r + start * 2, at.h_dot + start * F2,
                     at.x_dot + start * F2, at.along + start * 2, at.a_hat + start * F2, at.message_hat + start * F,
                     bar.turns + start * F, nullptr, nullptr, nullptr, h_hat[way], scratch + start * F2);
      }
      if (!k) sum_ways(n, bar.turns + size_t(a) * F, bar.turns + (size_t(n_pairs) + a) * F, bar.turns0 + size_t(a) * F, F);
      const T* hats[2] = {h_hat[0], h_hat[1]};
      turn_bars(g, to, k, a, n, hats, bar);
    }
    walk_bars(g, to, at, k, shorts[k + 1], shorts_dot[k + 1], bar);
  }

  static void unpad(const T* from, T* to) {
    for (int r = 0; r < F; ++r)
      for (int c = 0; c < NR; ++c) to[r * NR + c] += from[r * NRP + c];
  }

  // slopes of the frequencies, of functions A(r) sin(f r / cutoff), from bars and hats of the functions
  void frequency_slopes(const Radial<T>& f, int n, const T* bar, const T* hat, T* to) const {
    for (int i = 0; i < n; ++i) {
      T A, slope, s = T(lengths[i] / f.cutoff), sine[NRP], cosine[NRP];
      f.amplitude(lengths[i], A, slope);
      for (int j = 0; j < NRP; j += W<T>) {
        V<T> x, y;
        sine_cosine<T>(load<T>(f.frequencies + j) * s, x, y);
        store<T>(sine + j, x);
        store<T>(cosine + j, y);
      }
      for (int j = 0; j < NR; ++j)
        to[j] += bar[i * NRP + j] * A * cosine[j] * s +
                 hat[i * NRP + j] * length_dot[i] *
                     (slope * cosine[j] * s + T(A / f.cutoff) * (cosine[j] - sine[j] * f.frequencies[j] * s));
    }
  }

  // of a matrix after radial functions: bars times values, hats times changes
  void radial_slopes_of(const Radial<T>& f, int n, const T* bar, const T* hat, T* to) {
    T wide[F * NRP] = {};
    for (int a = 0; a < n; a += RB) {
      int b = std::min(n, a + RB);
      T basis[RB * NRP], basis_dot[RB * NRP];
      for (int i = a; i < b; ++i) radial_values(f, lengths[i], basis + (i - a) * NRP);
      radial_dots(f, a, b, basis_dot);
      outer<T, NRP>(b - a, bar + size_t(a) * F, F, basis, NRP, wide, NRP);
      outer<T, NRP>(b - a, hat + size_t(a) * F, F, basis_dot, NRP, wide, NRP);
    }
    unpad(wide, to);
  }

  void basis_bars(const Bars& bar, Slopes<T>& to) {
    T* basis_bar = rows(n_bonds, NRP);
    product<T, NRP>(n_bonds, bar.bonds, F, net.to_bond_p, NRP, basis_bar, NRP);
    product<T, NRP>(n_bonds, bar.weights, F, net.to_weight_p, NRP, basis_bar, NRP, F, nullptr, true);
    radial_slopes_of(net.long_radial, n_bonds, bar.bonds, bonds_hat, to.p[TO_BOND]);
    radial_slopes_of(net.long_radial, n_bonds, bar.weights, weights_hat, to.p[TO_WEIGHT]);
    frequency_slopes(net.long_radial, n_bonds, basis_bar, basis_hat, to.p[FREQ_A]);
    if (!n_pairs) return;
    T* short_bar = zeros(n_short);
    for (int i = 0; i < n_short; ++i)
      for (int e = walk_start[i]; e < walk_start[i + 1]; ++e) {
        size_t p = walks[e] % n_pairs, other = walks[e] < n_pairs ? pair_two[p] : pair_one[p];
        for (int j = 0; j < F; ++j)
          short_bar[size_t(i) * F + j] += bar.pairs[p * F + j] * short_weights[other * F + j] +
                                          pair_hat[p * F + j] * short_weights_dot[other * F + j];
      }
    product<T, NRP>(n_short, short_bar, F, net.to_short_p, NRP, basis_bar, NRP);
    radial_slopes_of(net.short_radial, n_short, short_bar, short_hat, to.p[TO_SHORT]);
    frequency_slopes(net.short_radial, n_short, basis_bar, short_basis_hat, to.p[FREQ_B]);
    T wide[F * NRP] = {};
    for (int a = 0; a < n_pairs; a += RB) {
      int b = std::min(n_pairs, a + RB);
      T waves[RB * NRP], waves_dot[RB * NRP], wave_bar[RB * NRP];
      wave_dots(a, b, waves_dot);
      product<T, NRP>(b - a, bar.turns0 + size_t(a) * F, F, net.to_angle_p, NRP, wave_bar, NRP);
      for (int p = a; p < b; ++p) {
        T sine[NRP / 2], cosine[NRP / 2];
        phases(angles[p], sine, cosine);
        T *row = waves + (p - a) * NRP, *up = wave_bar + (p - a) * NRP;
        const T* hat = wave_hat + size_t(p) * NRP;
        row[0] = T(1 / std::sqrt(2.f)) * scale();
        row[NR] = 0;
        for (int j = 0; j < NA; ++j) {
          row[1 + j] = sine[j] * scale();
          row[1 + NA + j] = cosine[j] * scale();
          T phase = net.freq_angle[j] * angles[p];
          to.p[FREQ_ANGLE][j] +=
              scale() * (angles[p] * (up[1 + j] * cosine[j] - up[1 + NA + j] * sine[j]) +
                         turn_dot[p] * (hat[1 + j] * (cosine[j] - phase * sine[j]) -
                                        hat[1 + NA + j] * (sine[j] + phase * cosine[j])));
        }
      }
      outer<T, NRP>(b - a, bar.turns0 + size_t(a) * F, F, waves, NRP, wide, NRP);
      outer<T, NRP>(b - a, turn_hat0 + size_t(a) * F, F, waves_dot, NRP, wide, NRP);
    }
    unpad(wide, to.p[TO_ANGLE]);
  }
};

}  // namespace

// What Python calls, for numbers of type REAL: float or double.
extern "C" {

void* make_network(const REAL* const* parameters, const int64_t* sizes, const double* radial) {
  return new Network<REAL>(parameters, sizes, radial);
}

// Whether parameters of the same sizes have the same bits as those that it was made from.
int holds(void* network, const REAL* const* parameters) {
  auto* net = static_cast<Network<REAL>*>(network);
  for (int k = 0; k < N_PARAMETERS; ++k)
    if (std::memcmp(net->p[k], parameters[k], net->n[k] * sizeof(REAL))) return 0;
  return 1;
}

void forget_network(void* network) { delete static_cast<Network<REAL>*>(network); }

// A batch to be differentiated, if asked to keep it.
void* evaluate(void* network, int n_threads, int derivatives, int keep, int n_atoms, int n_bonds, int n_crystals,
               const int64_t* z, const int64_t* owners, const int64_t* ends, const REAL* vectors, const REAL* lengths,
               REAL* energies, REAL* moments, REAL* forces, REAL* virials) {
  TinyIsZero flush;
  auto batch = std::make_unique<Batch<REAL>>(*static_cast<Network<REAL>*>(network), n_threads, keep, n_atoms, n_bonds,
                                             n_crystals, z, owners, ends, vectors, lengths);
  batch->values(energies, moments);
  if (derivatives) batch->hats(forces, virials);
  return keep ? batch.release() : nullptr;
}

void differentiate(void* batch, const REAL* to_energies, const REAL* to_moments, const REAL* to_forces,
                   const REAL* to_virials, REAL** slopes) {
  TinyIsZero flush;
  auto* b = static_cast<Batch<REAL>*>(batch);
  Slopes<REAL> to(slopes);
  b->dots(to_forces, to_virials);
  b->bars(to_energies, to_moments, to);
}

void forget_batch(void* batch) { delete static_cast<Batch<REAL>*>(batch); }
}
