// SPDX-License-Identifier: Apache-2.0
/**
 * What this build is for. A constant of the code and no option: it is measured with the rest, so no host can change it. `npm run
 * build:production` writes the other value; such a build attests itself on SGX or not at all.
 */
export const image: 'development' | 'production' = 'development'
