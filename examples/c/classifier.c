/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trains a classifier of two attention layers with libmolfuse's C interface and nothing else.
 *
 * A sequence is LENGTH random letters with one marker among them; its class is the letter after the marker. The first layer can look one
 * position back by its learned relative bias, the second at what the first has marked: neither alone can tell. Attention, pooling and the
 * loss are libmolfuse's, with their gradients; the projections between them and Adam are plain loops here.
 *
 * Exit status 0: the loss of fresh sequences has fallen under BOUND.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <molfuse/attention.h>
#include <molfuse/latent_concat.h>
#include <molfuse/vae_loss.h>

enum { BATCH = 32, LENGTH = 12, LETTERS = 4, MARKER = LETTERS, WORDS = LETTERS + 1, HEADS = 2, HEAD_SIZE = 8, WIDTH = HEADS * HEAD_SIZE };
enum { LAYERS = 2, RADIUS = 2, DISTANCES = 2 * RADIUS + 1, ROWS = BATCH * LENGTH, STEPS = 600 };
static const double BOUND = 0.1;

typedef struct layer {
  float qkv[WIDTH][3 * WIDTH];
  float out[WIDTH][WIDTH];
  float relative[HEADS][DISTANCES];
} layer;

/* Nothing but floats, so that Adam may take it as one array. */
typedef struct model {
  float embedding[WORDS][WIDTH];
  layer layers[LAYERS];
  float head[WIDTH][LETTERS];
} model;

enum { PARAMETERS = sizeof(model) / sizeof(float) };

/* What forward keeps of a layer for backward. */
typedef struct activations {
  float in[ROWS][WIDTH];
  float qkv[ROWS][3 * WIDTH];
  float attended[ROWS][WIDTH];
  float lse[BATCH][HEADS][LENGTH];
} activations;

static model weights, gradients, first_moment, second_moment;
static activations kept[LAYERS];
static float last[ROWS][WIDTH], grad_last[ROWS][WIDTH], pooled[BATCH][WIDTH], grad_pooled[BATCH][WIDTH];
static float logits[BATCH][LETTERS], grad_logits[BATCH][LETTERS], stats[MOLFUSE_VAE_STATS];
static int tokens[BATCH][LENGTH];
static int64_t classes[BATCH];
static uint32_t random_state = 1;

static double uniform(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return (random_state >> 8) / 16777216.0;
}

static int failed(const char* what, molfuse_status status) {
  if (status != MOLFUSE_OK) fprintf(stderr, "%s: %s\n", what, molfuse_last_error());
  return status != MOLFUSE_OK;
}

static molfuse_tensor tensor(void* data, int ndim, int64_t a, int64_t b, int64_t c) {
  molfuse_tensor t = {data, MOLFUSE_F32, ndim, {a, b, c, 0}, {0, 0, 0, 0}};
  int64_t step = 1;
  int d;
  for (d = ndim - 1; d >= 0; --d) {
    t.stride[d] = step;
    step *= t.size[d];
  }
  return t;
}

/* [B,N,row] memory, of which each head takes HEAD_SIZE columns from `column` on, as [B,H,N,D]. */
static molfuse_tensor heads_of(float* memory, int row, int column) {
  molfuse_tensor t = {memory + column, MOLFUSE_F32, 4, {BATCH, HEADS, LENGTH, HEAD_SIZE}, {(int64_t)LENGTH * row, HEAD_SIZE, row, 1}};
  return t;
}

/* to [rows,columns] (+)= from [rows,inner] . matrix [inner,columns] */
static void multiply(const float* from, const float* matrix, float* to, int rows, int inner, int columns, int add) {
  int r, i, c;
  if (!add) memset(to, 0, sizeof(float) * (size_t)rows * (size_t)columns);
  for (r = 0; r < rows; ++r) {
    for (i = 0; i < inner; ++i) {
      for (c = 0; c < columns; ++c) to[r * columns + c] += from[r * inner + i] * matrix[i * columns + c];
    }
  }
}

/* The gradients of multiply: of its matrix, added, and of `from`, added if add is set. */
static void multiply_backward(const float* from, const float* matrix, const float* grad_to, float* grad_from, float* grad_matrix, int rows,
                              int inner, int columns, int add) {
  int r, i, c;
  for (r = 0; r < rows; ++r) {
    for (i = 0; i < inner; ++i) {
      float sum = add ? grad_from[r * inner + i] : 0;
      for (c = 0; c < columns; ++c) {
        sum += grad_to[r * columns + c] * matrix[i * columns + c];
        grad_matrix[i * columns + c] += from[r * inner + i] * grad_to[r * columns + c];
      }
      grad_from[r * inner + i] = sum;
    }
  }
}

static molfuse_attention_args attention_of(layer* parameters, activations* a) {
  molfuse_attention_args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  args.query = heads_of(a->qkv[0], 3 * WIDTH, 0);
  args.key = heads_of(a->qkv[0], 3 * WIDTH, WIDTH);
  args.value = heads_of(a->qkv[0], 3 * WIDTH, 2 * WIDTH);
  args.relative_bias = tensor(parameters->relative, 2, HEADS, DISTANCES, 0);
  args.out = heads_of(a->attended[0], WIDTH, 0);
  args.lse = tensor(a->lse, 3, BATCH, HEADS, LENGTH);
  return args;
}

/* The mean over each sequence: every one is a "graph" of LENGTH nodes. */
static molfuse_latent_concat_args pooling_of(const molfuse_tensor* nodes, int64_t* graph_ptr) {
  molfuse_latent_concat_args args;
  int b;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  for (b = 0; b <= BATCH; ++b) graph_ptr[b] = (int64_t)b * LENGTH;
  args.num_layers = 1;
  args.layers = nodes;
  args.graph_ptr = tensor(graph_ptr, 1, BATCH + 1, 0, 0);
  args.graph_ptr.dtype = MOLFUSE_I64;
  return args;
}

static void draw_batch(void) {
  int b, n;
  for (b = 0; b < BATCH; ++b) {
    const int at = (int)(uniform() * (LENGTH - 1));
    for (n = 0; n < LENGTH; ++n) tokens[b][n] = n == at ? MARKER : (int)(uniform() * LETTERS);
    classes[b] = tokens[b][at + 1];
  }
}

/* The mean loss of the batch, and grad_logits; negative after a failure. */
static double forward(void) {
  int64_t graph_ptr[BATCH + 1];
  molfuse_tensor nodes = tensor(last, 2, ROWS, WIDTH, 0);
  molfuse_latent_concat_args pooling = pooling_of(&nodes, graph_ptr);
  molfuse_vae_loss_args loss;
  int l, r, c;
  for (r = 0; r < ROWS; ++r) memcpy(kept[0].in[r], weights.embedding[tokens[r / LENGTH][r % LENGTH]], sizeof kept[0].in[r]);
  for (l = 0; l < LAYERS; ++l) {
    float(*next)[WIDTH] = l + 1 < LAYERS ? kept[l + 1].in : last;
    molfuse_attention_args attention = attention_of(&weights.layers[l], &kept[l]);
    multiply(kept[l].in[0], weights.layers[l].qkv[0], kept[l].qkv[0], ROWS, WIDTH, 3 * WIDTH, 0);
    if (failed("attention forward", molfuse_attention_forward(&attention, NULL))) return -1;
    for (r = 0; r < ROWS; ++r) {
      for (c = 0; c < WIDTH; ++c) next[r][c] = kept[l].in[r][c];
    }
    multiply(kept[l].attended[0], weights.layers[l].out[0], next[0], ROWS, WIDTH, WIDTH, 1);
  }
  pooling.out = tensor(pooled, 2, BATCH, WIDTH, 0);
  if (failed("pooling forward", molfuse_latent_concat_forward(&pooling, NULL))) return -1;
  multiply(pooled[0], weights.head[0], logits[0], BATCH, WIDTH, LETTERS, 0);

  memset(&loss, 0, sizeof loss);
  loss.struct_size = sizeof loss;
  loss.logits = tensor(logits, 3, BATCH, 1, LETTERS);
  loss.targets = tensor(classes, 2, BATCH, 1, 0);
  loss.targets.dtype = MOLFUSE_I64;
  loss.pad_index = -1;
  loss.reduction = MOLFUSE_REDUCTION_MEAN;
  loss.stats = tensor(stats, 1, MOLFUSE_VAE_STATS, 0, 0);
  loss.grad_logits = tensor(grad_logits, 3, BATCH, 1, LETTERS);
  if (failed("loss", molfuse_vae_loss_forward(&loss, NULL))) return -1;
  return stats[MOLFUSE_VAE_RECON];
}

/* Fills gradients from grad_logits; 0 after a failure. */
static int backward(void) {
  static float grad_attended[ROWS][WIDTH], grad_qkv[ROWS][3 * WIDTH];
  int64_t graph_ptr[BATCH + 1];
  molfuse_tensor nodes = tensor(last, 2, ROWS, WIDTH, 0), grad_nodes = tensor(grad_last, 2, ROWS, WIDTH, 0);
  molfuse_latent_concat_args pooling = pooling_of(&nodes, graph_ptr);
  int l, r, c;
  memset(&gradients, 0, sizeof gradients);
  multiply_backward(pooled[0], weights.head[0], grad_logits[0], grad_pooled[0], gradients.head[0], BATCH, WIDTH, LETTERS, 0);
  pooling.grad_out = tensor(grad_pooled, 2, BATCH, WIDTH, 0);
  pooling.grad_layers = &grad_nodes;
  if (failed("pooling backward", molfuse_latent_concat_backward(&pooling, NULL))) return 0;
  for (l = LAYERS - 1; l >= 0; --l) {
    molfuse_attention_args attention = attention_of(&weights.layers[l], &kept[l]);
    multiply_backward(kept[l].attended[0], weights.layers[l].out[0], grad_last[0], grad_attended[0], gradients.layers[l].out[0], ROWS, WIDTH,
                      WIDTH, 0);
    attention.grad_out = heads_of(grad_attended[0], WIDTH, 0);
    attention.grad_query = heads_of(grad_qkv[0], 3 * WIDTH, 0);
    attention.grad_key = heads_of(grad_qkv[0], 3 * WIDTH, WIDTH);
    attention.grad_value = heads_of(grad_qkv[0], 3 * WIDTH, 2 * WIDTH);
    attention.grad_relative_bias = tensor(gradients.layers[l].relative, 2, HEADS, DISTANCES, 0);
    if (failed("attention backward", molfuse_attention_backward(&attention, NULL))) return 0;
    /* grad_last holds the skip connection's share already. */
    multiply_backward(kept[l].in[0], weights.layers[l].qkv[0], grad_qkv[0], grad_last[0], gradients.layers[l].qkv[0], ROWS, WIDTH, 3 * WIDTH, 1);
  }
  for (r = 0; r < ROWS; ++r) {
    for (c = 0; c < WIDTH; ++c) gradients.embedding[tokens[r / LENGTH][r % LENGTH]][c] += grad_last[r][c];
  }
  return 1;
}

/* Adam (Kingma & Ba 2015). */
static void update(int step) {
  const double beta1 = 0.9, beta2 = 0.99, rate = 0.01 * (1 - (double)(step - 1) / STEPS);
  const double scale1 = 1 / (1 - pow(beta1, step)), scale2 = 1 / (1 - pow(beta2, step));
  float *w = (float*)&weights, *m = (float*)&first_moment, *v = (float*)&second_moment;
  const float* g = (const float*)&gradients;
  int n;
  for (n = 0; n < PARAMETERS; ++n) {
    m[n] = (float)(beta1 * m[n] + (1 - beta1) * g[n]);
    v[n] = (float)(beta2 * v[n] + (1 - beta2) * g[n] * g[n]);
    w[n] -= (float)(rate * m[n] * scale1 / (sqrt(v[n] * scale2) + 1e-8));
  }
}

int main(void) {
  double loss = 0;
  int step, n;
  printf("molfuse %s, %d parameters\n", molfuse_version(), (int)PARAMETERS);
  for (n = 0; n < PARAMETERS; ++n) ((float*)&weights)[n] = (float)((uniform() - 0.5) * 0.8);
  for (step = 1; step <= STEPS; ++step) {
    draw_batch();
    loss = forward();
    if (loss < 0 || !backward()) return 2;
    update(step);
    if (step == 1 || step % 100 == 0) printf("step %3d  loss %.4f\n", step, loss);
  }
  for (loss = 0, n = 0; n < 10; ++n) {
    double fresh;
    draw_batch();
    fresh = forward();
    if (fresh < 0) return 2;
    loss += fresh / 10;
  }
  printf("fresh sequences: loss %.4f, to be under %.2f\n", loss, BOUND);
  return loss < BOUND ? 0 : 1;
}
