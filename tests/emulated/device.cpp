// A CUDA device without the device: the runtime, the driver and cuBLAS as torch and Triton call them.
//
// Device memory is the host's. Kernels of torch and of cuBLAS compute nothing here: who loads this
// queues, through emulated_call, what each of them would have computed. Work on a stream is done in
// order, and as late as CUDA allows: when somebody waits for it, or for an event behind it. So a
// host that reads too early, or overwrites what has not been read yet, gets wrong numbers always,
// not sometimes. EMULATED_EAGER=1 does everything at once, as a device that is always faster.
// Memory that nobody has written is NaN (0xFF); EMULATED_EMPTY=0 makes it zeros.
//
// Captures record what is queued and check what CUDA forbids meanwhile: waiting, and allocating
// outside of a relaxed section. One device, EMULATED_SMS multiprocessors, EMULATED_BYTES of memory.
// What is not here answers "not supported" (a stub made by build.py).
#include <cuda.h>
#include <cuda_runtime_api.h>
#undef cudaGetDeviceProperties

#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using Lock = std::unique_lock<std::recursive_mutex>;

long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}
const bool eager = setting("EMULATED_EAGER", 0);
const int empty = setting("EMULATED_EMPTY", 0xFF);
const int multiprocessors = setting("EMULATED_SMS", 132);
const size_t total_bytes = setting("EMULATED_BYTES", 6L << 30);

struct Stream;
struct Event {
  Stream *stream = nullptr;  // null: never recorded, or recorded in a capture
  long place = 0;            // in the stream's order
  bool captured = false;
  std::shared_ptr<struct Graph> graph;
  double ms = 0;
};

enum class Kind { copy, fill, call, host, record, wait, replay, kernel };
struct Command {
  Kind kind;
  void *to = nullptr;
  const void *from = nullptr;
  size_t bytes = 0;
  long number = 0;  // the byte of a fill, the number of a call, the place that is waited for
  std::shared_ptr<std::vector<char>> staged;  // of pageable memory: CUDA has read it at once
  cudaHostFn_t function = nullptr;
  Stream *stream = nullptr;
  Event *event = nullptr;
  std::shared_ptr<Graph> graph;
  long place = 0;
};
struct Graph {
  std::vector<Command> commands;
};
struct Stream {
  std::deque<Command> queue;
  long issued = 0, done = 0;
  bool busy = false;
  std::thread::id worker;  // while busy
  std::shared_ptr<Graph> capture;
  bool began = false;  // the capture, which other streams may have joined
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id capturer;
  unsigned long long capture_id = 0;
  int priority = 0;
};

std::recursive_mutex mutex;
std::condition_variable_any changed;
Stream default_stream;
std::set<Stream *> streams{&default_stream};
std::map<char *, size_t> pinned, on_device;
size_t used_bytes = 0;
unsigned long long captures = 0;
void (*compute)(long) = nullptr;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode own_mode = cudaStreamCaptureModeGlobal;
char anything[1 << 20];  // what handles point to

cudaError_t failed(cudaError_t error) { return last_error = error; }

double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

Stream *stream_of(const void *handle) {  // 0, 1 and 2 are the default ones
  return (size_t)handle < 3 ? &default_stream : (Stream *)handle;
}

bool within(const std::map<char *, size_t> &ranges, const void *place) {
  auto next = ranges.upper_bound((char *)place);
  if (next == ranges.begin()) return false;
  --next;
  return (char *)place < next->first + next->second;
}

void drain(Stream *stream, long place);

void run(Command &command) {
  switch (command.kind) {
    case Kind::copy:
      memmove(command.to, command.staged ? command.staged->data() : command.from, command.bytes);
      break;
    case Kind::fill: memset(command.to, (int)command.number, command.bytes); break;
    case Kind::call: compute(command.number); break;
    case Kind::host: command.function(command.to); break;
    case Kind::record: command.event->ms = now_ms(); break;
    case Kind::wait: drain(command.stream, command.number); break;
    case Kind::replay:
      for (auto &each : command.graph->commands) run(each);
      break;
    case Kind::kernel: break;
  }
}

// Does what is queued there up to a place. RACE: the lock is not held while a command runs: it may
// need Python's, whose holder may want this one.
void drain(Stream *stream, long place) {
  Lock lock(mutex);
  while (stream->done < place && !stream->queue.empty()) {
    if (stream->busy) {
      if (stream->worker == std::this_thread::get_id()) return;
      changed.wait(lock);
      continue;
    }
    Command command = std::move(stream->queue.front());
    stream->queue.pop_front();
    stream->busy = true;
    stream->worker = std::this_thread::get_id();
    lock.unlock();
    run(command);
    lock.lock();
    stream->done = command.place;
    stream->busy = false;
    changed.notify_all();
  }
}

void drain_all() {
  std::vector<std::pair<Stream *, long>> all;
  {
    Lock lock(mutex);
    for (auto *stream : streams) all.push_back({stream, stream->issued});
  }
  for (auto &[stream, place] : all) drain(stream, place);
}

// The place in the stream's order; 0: it has been captured.
long enqueue(Stream *stream, Command command) {
  long place;
  {
    Lock lock(mutex);
    if (stream->capture) {
      stream->capture->commands.push_back(std::move(command));
      return 0;
    }
    place = command.place = ++stream->issued;
    stream->queue.push_back(std::move(command));
  }
  if (eager) drain(stream, place);
  return place;
}

// Whether a capture forbids this thread to wait and to allocate.
bool forbidden() {
  Lock lock(mutex);
  if (own_mode == cudaStreamCaptureModeRelaxed) return false;
  for (auto *stream : streams) {
    if (!stream->capture || !stream->began) continue;
    bool own = stream->capturer == std::this_thread::get_id();
    bool everybody = stream->mode == cudaStreamCaptureModeGlobal;
    if (everybody && own_mode == cudaStreamCaptureModeGlobal) return true;
    if (own && stream->mode != cudaStreamCaptureModeRelaxed) return true;
  }
  return false;
}

void *mapped(size_t bytes) {
  void *place = mmap(nullptr, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return place == MAP_FAILED ? nullptr : place;
}

cudaError_t launch(const void *stream) {
  enqueue(stream_of(stream), Command{Kind::kernel});
  return cudaSuccess;
}

int attribute(int which) {  // those that torch and Triton ask for, as Hopper has them
  switch (which) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return multiprocessors;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 9;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: return 65536;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 48 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return 227 << 10;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return 228 << 10;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return 50 << 20;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 2147483647;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    default: return 0;
  }
}

}  // namespace

// Who computes: called with the numbers of emulated_call, in the thread that waits.
EXPORT void emulated_compute(void (*function)(long)) { compute = function; }

EXPORT void emulated_call(void *stream, long number) {
  Command command{Kind::call};
  command.number = number;
  enqueue(stream_of(stream), command);
}

EXPORT void emulated_wait(void *handle) {
  Stream *stream = stream_of(handle);
  drain(stream, stream->issued);
}

// ---- the device

EXPORT cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
EXPORT cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice);
}
EXPORT cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp *found, int) {
  memset(found, 0, sizeof *found);
  strcpy(found->name, "emulated Hopper");
  found->major = 9;
  found->totalGlobalMem = total_bytes;
  found->multiProcessorCount = multiprocessors;
  found->warpSize = 32;
  found->maxThreadsPerBlock = 1024;
  found->maxThreadsPerMultiProcessor = 2048;
  found->maxBlocksPerMultiProcessor = 32;
  found->sharedMemPerBlock = 48 << 10;
  found->sharedMemPerBlockOptin = 227 << 10;
  found->sharedMemPerMultiprocessor = 228 << 10;
  found->l2CacheSize = 50 << 20;
  found->regsPerBlock = found->regsPerMultiprocessor = 65536;
  found->unifiedAddressing = found->canMapHostMemory = found->concurrentKernels = 1;
  found->maxGridSize[0] = 2147483647;
  found->maxGridSize[1] = found->maxGridSize[2] = 65535;
  found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
  found->maxThreadsDim[2] = 64;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int) {
  return *value = attribute(which), cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) { return *can = 0, cudaSuccess; }
EXPORT cudaError_t cudaDeviceSynchronize() {
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  drain_all();
  return cudaSuccess;
}
EXPORT const char *cudaGetErrorName(cudaError_t) { return "an emulated error"; }
EXPORT const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorStreamCaptureUnsupported: return "not permitted while a stream is captured";
    case cudaErrorNotSupported: return "not emulated";
    default: return "an emulated error";
  }
}
EXPORT cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
EXPORT cudaError_t cudaPeekAtLastError() { return last_error; }

// ---- memory

EXPORT cudaError_t cudaMalloc(void **place, size_t bytes) {
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  Lock lock(mutex);
  if (used_bytes + bytes > total_bytes) return failed(cudaErrorMemoryAllocation);
  *place = mapped(bytes);
  used_bytes += bytes;
  on_device[(char *)*place] = bytes;
  constexpr size_t filled_at_most = 64 << 20;  // what is larger would be there in earnest
  if (bytes <= filled_at_most) memset(*place, empty, bytes);
  return cudaSuccess;
}
EXPORT cudaError_t cudaFree(void *place) {
  if (!place) return cudaSuccess;
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  drain_all();
  Lock lock(mutex);
  auto found = on_device.find((char *)place);
  if (found == on_device.end()) return failed(cudaErrorInvalidValue);
  munmap(place, found->second);
  used_bytes -= found->second;
  on_device.erase(found);
  return cudaSuccess;
}
EXPORT cudaError_t cudaHostAlloc(void **place, size_t bytes, unsigned) {
  Lock lock(mutex);
  *place = mapped(bytes);
  pinned[(char *)*place] = bytes;
  return cudaSuccess;
}
EXPORT cudaError_t cudaFreeHost(void *place) {
  drain_all();
  Lock lock(mutex);
  auto found = pinned.find((char *)place);
  if (found == pinned.end()) return failed(cudaErrorInvalidValue);
  munmap(place, found->second);
  pinned.erase(found);
  return cudaSuccess;
}
EXPORT cudaError_t cudaHostRegister(void *place, size_t bytes, unsigned) {
  Lock lock(mutex);
  pinned[(char *)place] = bytes;
  return cudaSuccess;
}
EXPORT cudaError_t cudaHostUnregister(void *place) {
  Lock lock(mutex);
  pinned.erase((char *)place);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  Lock lock(mutex);
  *total = total_bytes;
  *free = total_bytes - used_bytes;
  return cudaSuccess;
}
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *found, const void *place) {
  Lock lock(mutex);
  memset(found, 0, sizeof *found);
  bool device = within(on_device, place), host = within(pinned, place);
  found->type = device ? cudaMemoryTypeDevice
                : host ? cudaMemoryTypeHost
                       : cudaMemoryTypeUnregistered;
  if (device || host) found->devicePointer = (void *)place;
  if (!device) found->hostPointer = (void *)place;
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t handle) {
  Command command{Kind::copy};
  command.to = to;
  command.from = from;
  command.bytes = bytes;
  bool waits;
  {
    Lock lock(mutex);
    if (!within(on_device, from) && !within(pinned, from)) {
      auto *bytes_there = (const char *)from;
      command.staged = std::make_shared<std::vector<char>>(bytes_there, bytes_there + bytes);
    }
    waits = !within(on_device, to) && !within(pinned, to);
  }
  Stream *stream = stream_of(handle);
  long place = enqueue(stream, std::move(command));
  if (waits) drain(stream, place);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  if (forbidden()) return failed(cudaErrorStreamCaptureImplicit);
  cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  drain_all();
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemsetAsync(void *place, int byte, size_t bytes, cudaStream_t stream) {
  Command command{Kind::fill};
  command.to = place;
  command.number = byte;
  command.bytes = bytes;
  enqueue(stream_of(stream), command);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemset(void *place, int byte, size_t bytes) {
  return cudaMemsetAsync(place, byte, bytes, nullptr);
}
EXPORT cudaError_t cudaGetSymbolAddress(void **place, const void *) {
  return *place = anything, cudaSuccess;
}

// ---- streams and events: neither is ever freed, as torch keeps them, too

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t *made, unsigned, int priority) {
  Lock lock(mutex);
  auto *stream = new Stream;
  stream->priority = priority;
  streams.insert(stream);
  *made = (cudaStream_t)stream;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags) {
  return cudaStreamCreateWithPriority(made, flags, 0);
}
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
  return *priority = stream_of(handle)->priority, cudaSuccess;
}
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Stream *stream = stream_of(handle);
  if (stream->capture || forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  drain(stream, stream->issued);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Stream *stream = stream_of(handle);
  Lock lock(mutex);
  if (stream->capture) return failed(cudaErrorStreamCaptureUnsupported);
  return stream->done < stream->issued ? cudaErrorNotReady : cudaSuccess;
}
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned) {
  return *made = (cudaEvent_t) new Event, cudaSuccess;
}
EXPORT cudaError_t cudaEventCreate(cudaEvent_t *made) { return cudaEventCreateWithFlags(made, 0); }
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t on, unsigned) {
  auto *event = (Event *)handle;
  Stream *stream = stream_of(on);
  Command command{Kind::record};
  command.event = event;
  Lock lock(mutex);
  event->graph = stream->capture;
  event->captured = (bool)stream->capture;
  event->stream = event->captured ? nullptr : stream;
  event->place = enqueue(stream, command);
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}
EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  auto *event = (Event *)handle;
  if (event->captured) return failed(cudaErrorCapturedEvent);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  Lock lock(mutex);
  return event->stream && event->stream->done < event->place ? cudaErrorNotReady : cudaSuccess;
}
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  auto *event = (Event *)handle;
  if (event->captured) return failed(cudaErrorCapturedEvent);
  if (forbidden()) return failed(cudaErrorStreamCaptureUnsupported);
  if (event->stream) drain(event->stream, event->place);
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  double taken = ((Event *)to)->ms - ((Event *)from)->ms;
  return *ms = taken > 1e-3 ? taken : 1e-3, cudaSuccess;
}
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t awaited, unsigned) {
  auto *event = (Event *)awaited;
  Stream *stream = stream_of(handle);
  Lock lock(mutex);
  if (event->captured) {  // the stream joins the capture
    if (stream->capture && stream->capture != event->graph)
      return failed(cudaErrorStreamCaptureMerge);
    stream->capture = event->graph;
    return cudaSuccess;
  }
  if (!event->stream) return cudaSuccess;
  if (stream->capture) return failed(cudaErrorStreamCaptureIsolation);
  Command command{Kind::wait};
  command.stream = event->stream;
  command.number = event->place;
  enqueue(stream, command);
  return cudaSuccess;
}
EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  Command command{Kind::host};
  command.function = function;
  command.to = data;
  enqueue(stream_of(stream), command);
  return cudaSuccess;
}

// ---- graphs

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  std::swap(*mode, own_mode);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Stream *stream = stream_of(handle);
  Lock lock(mutex);
  if (stream == &default_stream) return failed(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) return failed(cudaErrorIllegalState);
  stream->capture = std::make_shared<Graph>();
  stream->began = true;
  stream->mode = mode;
  stream->capturer = std::this_thread::get_id();
  stream->capture_id = ++captures;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *made) {
  Stream *stream = stream_of(handle);
  Lock lock(mutex);
  if (!stream->capture) return failed(cudaErrorIllegalState);
  auto graph = stream->capture;
  for (auto *each : streams)
    if (each->capture == graph) each->capture = nullptr;
  stream->began = false;
  *made = (cudaGraph_t) new std::shared_ptr<Graph>(graph);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  Lock lock(mutex);
  *status = stream_of(handle)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus *status,
                                            unsigned long long *id, cudaGraph_t *graph,
                                            const cudaGraphNode_t **nodes,
                                            const cudaGraphEdgeData **edges, size_t *count) {
  if (id) *id = stream_of(handle)->capture_id;
  if (graph) *graph = nullptr;
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaStreamIsCapturing(handle, status);
}
EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph,
                                                 unsigned long long) {
  *made = (cudaGraphExec_t) new std::shared_ptr<Graph>(*(std::shared_ptr<Graph> *)graph);
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  Command command{Kind::replay};
  command.graph = *(std::shared_ptr<Graph> *)graph;
  enqueue(stream_of(stream), command);
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete (std::shared_ptr<Graph> *)graph;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete (std::shared_ptr<Graph> *)graph;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *, size_t *count) {
  return *count = (*(std::shared_ptr<Graph> *)graph)->commands.size(), cudaSuccess;
}

// ---- kernels, torch's

EXPORT cudaError_t cudaLaunchKernel(const void *, dim3, dim3, void **, size_t, cudaStream_t stream) {
  return launch(stream);
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void **, size_t, cudaStream_t stream) {
  return launch(stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *, void **) {
  return launch(how->stream);
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  return *kernel = (cudaKernel_t)function, cudaSuccess;
}
EXPORT void **__cudaRegisterFatBinary(void *) {
  static void *handle;
  return &handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void **) {}
EXPORT void __cudaUnregisterFatBinary(void **) {}
EXPORT void __cudaRegisterFunction() {}
EXPORT void __cudaRegisterVar() {}
EXPORT unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void *) { return 0; }
EXPORT cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = *block = dim3{1, 1, 1};
  *shared = 0;
  *(void **)stream = nullptr;  // nothing that is launched so computes: the order does not matter
  return cudaSuccess;
}
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *found, const void *) {
  memset(found, 0, sizeof *found);
  found->maxThreadsPerBlock = 1024;
  found->binaryVersion = found->ptxVersion = 90;
  return cudaSuccess;
}
EXPORT cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) { return cudaSuccess; }
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *,
                                                                          int, size_t, unsigned) {
  return *blocks = 2, cudaSuccess;
}
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **place, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult *result) {
  *place = dlsym(RTLD_DEFAULT, name);
  if (result) *result = *place ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

// ---- the driver: Triton calls it, and torch where the runtime does not know

EXPORT CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
EXPORT CUresult cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGet(CUdevice *device, int number) { return *device = number, CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice) {
  return *value = attribute(which), CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
  return *context = (CUcontext)anything, CUDA_SUCCESS;
}
EXPORT CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
  return *context = (CUcontext)anything, CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned *flags, int *active) {
  return *flags = 0, *active = 1, CUDA_SUCCESS;
}
EXPORT CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction) {
  return *value = which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0, CUDA_SUCCESS;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
EXPORT CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }
EXPORT CUresult cuGetErrorString(CUresult, const char **text) {
  return *text = "an emulated error", CUDA_SUCCESS;
}
EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *) {
  return *module = (CUmodule)anything, CUDA_SUCCESS;
}
EXPORT CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule, const char *) {
  return *function = (CUfunction)anything, CUDA_SUCCESS;
}
EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *how, CUfunction, void **, void **) {
  return launch(how->hStream), CUDA_SUCCESS;
}
EXPORT CUresult cuPointerGetAttribute(void *value, CUpointer_attribute, CUdeviceptr place) {
  Lock lock(mutex);
  if (!within(on_device, (void *)place) && !within(pinned, (void *)place))
    return CUDA_ERROR_INVALID_VALUE;
  return *(CUdeviceptr *)value = place, CUDA_SUCCESS;
}

// ---- cuBLAS: what has an answer; all else of it counts as a launch (a stub made by build.py)

// Into a capture, if there is one: a graph without nodes is an error to torch.
EXPORT int emulated_product() {
  Lock lock(mutex);
  for (auto *stream : streams)
    if (stream->capture && stream->began) stream->capture->commands.push_back({Kind::kernel});
  return 0;
}
EXPORT int cublasCreate_v2(void **handle) { return *handle = anything, 0; }
EXPORT int cublasGetMathMode(void *, int *mode) { return *mode = 0; }
EXPORT int cublasGetPointerMode_v2(void *, int *mode) { return *mode = 0; }
EXPORT size_t cublasLtGetVersion() { return CUDA_VERSION * 10; }
EXPORT int cublasLtMatmulDescCreate(void **made, int, int) { return *made = anything, 0; }
EXPORT int cublasLtMatrixLayoutCreate(void **made, int, long, long, long) {
  return *made = anything, 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(void **made) { return *made = anything, 0; }
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *,
                                          int, void *results, int *count) {
  constexpr size_t result_bytes = 96;  // cublasLtMatmulHeuristicResult_t; all zeros: it serves
  memset(results, 0, result_bytes);
  return *count = 1, 0;
}
