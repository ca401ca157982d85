// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/** Philox4x32-10 of Salmon et al. 2011, written from the paper: what the operators' random numbers are checked against. */
final class Philox {
  private static final long MASK = 0xFFFFFFFFL;

  private Philox() {}

  /** The four words, each 0 .. 2^32-1, of one counter under one key. */
  static long[] words(long c0, long c1, long c2, long c3, long key) {
    long[] c = {c0 & MASK, c1 & MASK, c2 & MASK, c3 & MASK};
    long k0 = key & MASK;
    long k1 = key >>> 32;
    for (int round = 0; round < 10; round++) {
      long p0 = 0xD2511F53L * c[0];
      long p1 = 0xCD9E8D57L * c[2];
      c = new long[] {(p1 >>> 32) ^ c[1] ^ k0, p1 & MASK, (p0 >>> 32) ^ c[3] ^ k1, p0 & MASK};
      k0 = (k0 + 0x9E3779B9L) & MASK;
      k1 = (k1 + 0xBB67AE85L) & MASK;
    }
    return c;
  }

  static boolean keeps(long word, double dropoutP) {
    return dropoutP == 0 || word >= Math.max(1, (long) (dropoutP * 4294967296.0));
  }

  /** Attention's decision for weight (b, h, i, j), bh being b * H + h. */
  static boolean attentionKeeps(long bh, long i, long j, double p, long seed, long offset) {
    return keeps(words(j / 4, i, bh, offset, seed + (offset >>> 32))[(int) (j % 4)], p);
  }

  /** Graph attention's decision for by-target edge e and head h. */
  static boolean graphKeeps(long e, long h, double p, long seed, long offset) {
    return keeps(words(e, e >>> 32, h / 4, offset, seed + (offset >>> 32))[(int) (h % 4)], p);
  }

  /** The encoder epilogue's factor of element n, in row-major order. */
  static double epilogueFactor(long n, double p, long seed, long offset) {
    if (p == 0) {
      return 1;
    }
    long threshold = Math.min(65535, Math.max(1, (long) Math.floor(p * 65536 + 0.5)));
    long group = n / 8;
    long word = words(group, group >>> 32, offset, offset >>> 32, seed)[(int) (n % 8) / 2];
    long half = (n % 2 == 0 ? word : word >>> 16) & 0xFFFF;
    return half >= threshold ? 65536.0 / (65536 - threshold) : 0;
  }

  /** The standard normal number of element n of reparameterize, by Box and Muller 1958. */
  static double normal(long n, long seed, long offset) {
    long group = n / 4;
    long[] w = words(group, group >>> 32, offset, offset >>> 32, seed);
    int pair = (int) (n % 4) / 2 * 2;
    double u0 = (w[pair] + 0.5) * 0x1p-32;
    double u1 = (w[pair + 1] + 0.5) * 0x1p-32;
    double radius = Math.sqrt(-2 * Math.log(u0));
    return n % 2 == 0 ? radius * Math.cos(2 * Math.PI * u1) : radius * Math.sin(2 * Math.PI * u1);
  }
}
