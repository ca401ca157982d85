// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.pytorch.global.torch.ScalarType;

/** Element types of safetensors files that libtorch computes with. */
enum ElementType {
  F64(ScalarType.Double, 8, 53, 11),
  F32(ScalarType.Float, 4, 24, 8),
  BF16(ScalarType.BFloat16, 2, 8, 8),
  F16(ScalarType.Half, 2, 11, 5),
  I64(ScalarType.Long, 8, 63, 0),
  I32(ScalarType.Int, 4, 31, 0),
  I16(ScalarType.Short, 2, 15, 0),
  I8(ScalarType.Char, 1, 7, 0),
  U8(ScalarType.Byte, 1, 8, 0),
  BOOL(ScalarType.Bool, 1, 1, 0);

  final ScalarType scalarType;
  final int bytes;

  /** Bits of the largest integer below which all are there. */
  private final int precision;

  /** Bits of the exponent, 0 for integers. */
  private final int exponent;

  ElementType(ScalarType scalarType, int bytes, int precision, int exponent) {
    this.scalarType = scalarType;
    this.bytes = bytes;
    this.precision = precision;
    this.exponent = exponent;
  }

  /** Null for a type that safetensors files do not have. */
  static ElementType of(ScalarType type) {
    for (ElementType each : values()) {
      if (each.scalarType == type) {
        return each;
      }
    }
    return null;
  }

  /** Null for a name that is none of these types'. */
  static ElementType named(String name) {
    for (ElementType each : values()) {
      if (each.name().equals(name)) {
        return each;
      }
    }
    return null;
  }

  /** Whether every value of this type is one of the other. */
  boolean fitsInto(ElementType other) {
    boolean signLost = other == U8 && this != BOOL && this != U8;
    return this == other || !signLost && precision <= other.precision && exponent <= other.exponent;
  }
}
