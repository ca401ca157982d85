/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file runtime.h
 * What every operator family of libmolfuse shares: status codes, error text, element types, strided tensor views, the
 * execution context, the random number contract, and queries about the library and the machine.
 *
 * Conventions of the whole C interface
 *  - Functions return a molfuse_status. On failure the text of the error is kept per thread: molfuse_last_error().
 *  - No C++ exception leaves the library and it never aborts on bad arguments: shapes, element types and ranges are
 *    checked before any output is written.
 *  - Argument structs (*_args, molfuse_execution, molfuse_capabilities, molfuse_device_info) start with struct_size, which the
 *    caller sets to sizeof the struct he was compiled with; fields added by later versions are then taken as zero. Zero must
 *    therefore always mean "absent" or "default". A size larger than the library's is refused: that caller may ask for what this
 *    version does not know. The small structs inside them (molfuse_tensor, molfuse_philox, molfuse_graph) never change.
 *  - A molfuse_tensor whose data is NULL is absent. Sizes and strides count elements; strides may be any value for
 *    inputs (0 for broadcasting, negative) and must not make two elements of an output overlap. data is aligned to its elements.
 *    Outputs may not overlap inputs unless a function says so.
 *  - Accumulation is in f32 for f16, bf16 and f32, and in f64 for f64.
 *  - CPU calls are synchronous. Device calls are enqueued on execution->stream and do not synchronise. They may be captured into a
 *    CUDA graph. What is an argument on the host (sizes, pointers, factors, the seeds of molfuse_philox) is then part of the graph:
 *    a replay draws the same random numbers again.
 *  - The memory of a device call's tensors must be accessible from that device; nothing checks that. Values in device memory are
 *    not seen before the launch: where they are wrong, results are NaN, zero or not written, and the library's next call on the device says so.
 *  - A failed call leaves its inputs as they were and its outputs undefined, frees its scratch memory, and may be tried again, but
 *    for a fault of the device itself (MOLFUSE_INTERNAL_ERROR, whose text then says that the process must be started anew).
 *  - All functions are thread safe. Parallel work runs on the OpenMP pool of the calling thread.
 */
#ifndef MOLFUSE_RUNTIME_H
#define MOLFUSE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

/** Of functions that the library exports. */
#if defined(_WIN32)
#define MOLFUSE_API
#else
#define MOLFUSE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** What functions return. */
typedef enum molfuse_status {
  MOLFUSE_OK = 0,               /**< done, or on a device enqueued */
  MOLFUSE_INVALID_ARGUMENT = 1, /**< wrong shape, stride, element type, range or a missing argument */
  MOLFUSE_UNSUPPORTED = 2,      /**< a valid request that no backend of this build can serve */
  MOLFUSE_OUT_OF_MEMORY = 3,    /**< no memory for scratch */
  MOLFUSE_INTERNAL_ERROR = 4    /**< a fault of the device or of this library */
} molfuse_status;

/** Element types; which ones a tensor may have, an operator's header says. */
typedef enum molfuse_dtype {
  MOLFUSE_F32 = 0,  /**< IEEE 754 binary32 */
  MOLFUSE_F64 = 1,  /**< IEEE 754 binary64; on the CPU only */
  MOLFUSE_F16 = 2,  /**< IEEE 754 binary16 */
  MOLFUSE_BF16 = 3, /**< the upper half of a binary32 */
  MOLFUSE_I32 = 4,  /**< indices */
  MOLFUSE_I64 = 5   /**< indices */
} molfuse_dtype;

/** Dimensions that a molfuse_tensor can have. */
#define MOLFUSE_MAX_DIMS 4

/** A strided view of memory that somebody else owns. sizes and strides in elements; only the first ndim entries count. */
typedef struct molfuse_tensor {
  void* data;                       /**< the element whose indices are all 0; NULL: the tensor is absent */
  int32_t dtype;                    /**< a molfuse_dtype */
  int32_t ndim;                     /**< dimensions */
  int64_t size[MOLFUSE_MAX_DIMS];   /**< of each dimension */
  int64_t stride[MOLFUSE_MAX_DIMS]; /**< elements between neighbours in each dimension */
} molfuse_tensor;

/** Where a call runs. */
typedef enum molfuse_device_type {
  MOLFUSE_CPU = 0, /**< the calling thread and OpenMP's */
  MOLFUSE_CUDA = 1 /**< a CUDA device */
} molfuse_device_type;

/** Where and how to run. NULL, or all zero but struct_size, means: the CPU, all threads of the OpenMP pool. */
typedef struct molfuse_execution {
  size_t struct_size;   /**< sizeof of the struct, set by the caller */
  int32_t device_type;  /**< a molfuse_device_type */
  int32_t device_index; /**< as the CUDA runtime counts devices; ignored on the CPU */
  void* stream;         /**< CUstream for MOLFUSE_CUDA; ignored on the CPU */
  int32_t deterministic; /**< non-zero: two runs on the same inputs and thread count agree bit for bit. (The CPU always does.) */
  int32_t num_threads;  /**< CPU: at most so many threads; 0 = the OpenMP default, or fewer for little work */
  /** Device scratch memory, ordered on stream and aligned to 256 bytes; allocate returns NULL where there is none left. Both NULL: the
      library's own. Unused on the CPU. */
  void* (*allocate)(void* context, size_t bytes);
  void (*release)(void* context, void* memory); /**< takes back what allocate gave */
  void* allocator_context;                      /**< context of both */
  /** Non-zero: matrix products of f32 on tensor cores may take their operands as tf32, 10 bits of mantissa, as
      torch.backends.cuda.matmul.allow_tf32 has it: a third of the work. Otherwise their error is that of f32. Unused on the CPU. */
  int32_t allow_tf32;
} molfuse_execution;

/**
 * The random numbers of dropout and reparameterize: Philox4x32-10 (Salmon et al. 2011), the same on every backend.
 * The 128-bit counter is (low to high 32-bit words) c0, c1, c2, c3 and the key is seed's low and high word. Each operator
 * documents how an element's position makes the counter. offset separates calls that share a seed.
 */
typedef struct molfuse_philox {
  uint64_t seed;   /**< the key */
  uint64_t offset; /**< two words of the counter */
} molfuse_philox;

/** Version of the library as "major.minor.patch[-suffix]". */
MOLFUSE_API const char* molfuse_version(void);

/** Text of the last failure in this thread; empty if the last call in this thread succeeded. Valid until the next call. */
MOLFUSE_API const char* molfuse_last_error(void);

/** "f32", "bf16", ...; "unknown" for any other number. */
MOLFUSE_API const char* molfuse_dtype_name(int32_t dtype);

/** Bytes of one element, 0 for an unknown type. */
MOLFUSE_API size_t molfuse_dtype_size(int32_t dtype);

/** What this build can do on this machine. */
typedef struct molfuse_capabilities {
  size_t struct_size;           /**< set by the caller */
  char cpu_vector_level[16];    /**< level in use: "baseline", "avx2" or "avx512" */
  char cpu_vector_best[16];     /**< best level the machine has */
  int32_t cpu_threads;          /**< threads a parallel call from this thread would use */
  int32_t cuda_compiled;        /**< 1 if the build holds CUDA kernels */
  int32_t cuda_usable;          /**< 1 if a CUDA device can be used now */
  int32_t cudnn_usable;         /**< 1 if attention on a device can use cuDNN: there are a libcudnn and a device */
  char cuda_reason[160];        /**< why cuda_usable is 0 */
  char cudnn_reason[160];       /**< why cudnn_usable is 0 */
  int32_t cudnn_version;        /**< of the libcudnn that was found, 91900 for 9.19.0; 0: none */
  char attention_backend[16];   /**< the setting of molfuse_set_attention_backend */
} molfuse_capabilities;

/** Describes this build and machine; works without a device. */
MOLFUSE_API molfuse_status molfuse_get_capabilities(molfuse_capabilities* out);

/** A CUDA device, as far as it can be asked without using it. */
typedef struct molfuse_device_info {
  size_t struct_size;              /**< set by the caller */
  int32_t device_count;            /**< CUDA devices there are */
  int32_t usable;                  /**< 1 if calls can run on this one */
  int32_t compute_major;           /**< compute capability; 0, as all that follows to total_memory, where there is no such device */
  int32_t compute_minor;           /**< of the compute capability */
  int32_t multiprocessors;         /**< of the device */
  int32_t driver_version;          /**< CUDA version that the driver supports, 13000 for 13.0; 0: there is no driver */
  int32_t runtime_version;         /**< CUDA version of this build; 0: it has no CUDA kernels */
  int64_t shared_memory_per_block; /**< bytes that a block may ask for */
  int64_t total_memory;            /**< bytes */
  char name[64];                   /**< of the device, as its driver says */
  char reason[256];                /**< why usable is 0 */
} molfuse_device_info;

/**
 * Describes device number `device`, counted as the CUDA runtime does (CUDA_VISIBLE_DEVICES). Succeeds without a driver, a device or CUDA
 * kernels in the build too: out then says why there are none.
 * @return MOLFUSE_INVALID_ARGUMENT for a negative number, or one not below device_count where there are devices.
 */
MOLFUSE_API molfuse_status molfuse_get_device_info(int32_t device, molfuse_device_info* out);

/**
 * Forces the CPU vector level for all later calls of the process: "baseline", "avx2", "avx512", or "auto". Meant for tests
 * and measurements; MOLFUSE_CPU_LEVEL in the environment does the same at load time.
 * @return MOLFUSE_UNSUPPORTED when the machine has no such level, MOLFUSE_INVALID_ARGUMENT for another word.
 */
MOLFUSE_API molfuse_status molfuse_set_cpu_level(const char* level);

/**
 * Chooses what computes molfuse_attention_forward and molfuse_attention_backward on a device in all later calls of the process; on the CPU
 * and for molfuse_attention_decode there is one choice only. MOLFUSE_ATTENTION_BACKEND in the environment does the same at load time.
 *  - "auto", the default: cuDNN for the problems that the library's table of measurements gives to it, if it is there and can do them
 *    as documented, else this library's kernels. No GPU has been measured yet: the table is empty.
 *  - "own": this library's kernels.
 *  - "cudnn": cuDNN, or MOLFUSE_UNSUPPORTED from the call with the reason: it is absent, or cannot do the problem.
 * A backward may follow a forward of the other backend. With cuDNN and key_lengths, key and value rows past a sequence's end must be finite.
 * MOLFUSE_CUDNN in the environment names the libcudnn to use, or its folder, or is "off".
 * @return MOLFUSE_INVALID_ARGUMENT for another word.
 */
MOLFUSE_API molfuse_status molfuse_set_attention_backend(const char* backend);

#ifdef __cplusplus
}
#endif
#endif
