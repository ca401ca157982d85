// SPDX-License-Identifier: Apache-2.0
/** The command line: train, search, generate, selfies, info. */
package io.molfuse.cli;
