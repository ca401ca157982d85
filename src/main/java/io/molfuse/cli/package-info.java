// SPDX-License-Identifier: Apache-2.0
/** The command line: train, generate, selfies, info. */
package io.molfuse.cli;
