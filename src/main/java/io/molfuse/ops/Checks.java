// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.Arrays;
import java.util.Locale;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The argument checks that cost next to nothing on this side of JNI: presence, number of dimensions, kind of element type.
 * Sizes, strides, devices and ranges are checked by the native operators. Names are those of the operator contracts.
 */
final class Checks {
  private Checks() {}

  static <T> T notNull(String name, T argument) {
    if (argument == null) {
      throw new IllegalArgumentException(name + ": expected a value, got null");
    }
    return argument;
  }

  /** A vector that is there and not closed. */
  static TensorVector open(String name, TensorVector tensors) {
    if (notNull(name, tensors).isNull()) {
      throw new IllegalArgumentException(name + ": expected tensors, got a closed vector");
    }
    return tensors;
  }

  static double finite(String name, double value) {
    if (!Double.isFinite(value)) {
      throw new IllegalArgumentException(name + ": expected a finite number, got " + value);
    }
    return value;
  }

  static Tensor defined(String name, Tensor tensor, String expected) {
    if (tensor == null || tensor.isNull()) {
      throw new IllegalArgumentException(
          name + ": expected a tensor " + expected + ", got " + (tensor == null ? "null" : "a closed one"));
    }
    if (!tensor.defined()) {
      throw new IllegalArgumentException(name + ": expected a tensor " + expected + ", got an undefined one");
    }
    return tensor;
  }

  static void dims(String name, Tensor tensor, String expected, boolean ok) {
    if (!ok) {
      throw new IllegalArgumentException(name + ": expected " + expected + ", got " + describe(tensor));
    }
  }

  static Tensor floating(String name, Tensor tensor, String expected) {
    defined(name, tensor, expected);
    ScalarType type = type(tensor);
    if (type != ScalarType.Float && type != ScalarType.Double && type != ScalarType.Half && type != ScalarType.BFloat16) {
      throw new IllegalArgumentException(
          name + ": expected float16, bfloat16, float32 or float64 " + expected + ", got " + describe(tensor));
    }
    return tensor;
  }

  static Tensor floating(String name, Tensor tensor, String expected, long dim) {
    floating(name, tensor, expected);
    dims(name, tensor, expected, tensor.dim() == dim);
    return tensor;
  }

  /** An int32 or int64 tensor. */
  static Tensor index(String name, Tensor tensor, String expected, long dim) {
    defined(name, tensor, expected);
    ScalarType type = type(tensor);
    if (type != ScalarType.Int && type != ScalarType.Long) {
      throw new IllegalArgumentException(name + ": expected int32 or int64 " + expected + ", got " + describe(tensor));
    }
    dims(name, tensor, expected, tensor.dim() == dim);
    return tensor;
  }

  static void sameType(String name, Tensor tensor, String otherName, Tensor other) {
    if (type(tensor) != type(other)) {
      throw new IllegalArgumentException(
          name + ": expected the element type of " + otherName + ", " + typeName(other) + ", got " + describe(tensor));
    }
  }

  static void together(String name, Tensor tensor, String otherName, Tensor other) {
    if ((tensor == null) != (other == null)) {
      throw new IllegalArgumentException(
          (tensor == null ? name : otherName) + ": expected a tensor, since " + (tensor == null ? otherName : name) + " is given, got null");
    }
  }

  /** The element type. What JavaCPP returns for a C++ enumeration is an object of its own, equal to no constant. */
  static ScalarType type(Tensor tensor) {
    return tensor.scalar_type().intern();
  }

  /** Such as "float32 [2, 3, 4] on cpu". */
  static String describe(Tensor tensor) {
    String shape = Arrays.toString(tensor.shape());
    try (Device device = tensor.device()) {
      try (BytePointer place = device.str()) {
        return typeName(tensor) + " " + shape + " on " + place.getString();
      }
    }
  }

  static String typeName(Tensor tensor) {
    ScalarType type = type(tensor);
    return switch (type) {
      case Half -> "float16";
      case BFloat16 -> "bfloat16";
      case Float -> "float32";
      case Double -> "float64";
      case Byte -> "uint8";
      case Char -> "int8";
      case Short -> "int16";
      case Int -> "int32";
      case Long -> "int64";
      default -> type.name().toLowerCase(Locale.ROOT);
    };
  }
}
