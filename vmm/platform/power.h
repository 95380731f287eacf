/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The machine's ways to sleep, power off and reset: the ACPI fixed hardware (PM1, PM timer, reset
 * register), the PC's reset control port and the keyboard controller's reset line.
 */
#ifndef VMM_POWER_H
#define VMM_POWER_H

#include <stdbool.h>
#include <stdint.h>

struct power;
struct vm;

/* What the FADT and the DSDT tell the guest. */
#define POWER_PM1_EVT_PORT 0x600 /* status (2 bytes), enable (2 bytes) */
#define POWER_PM1_CNT_PORT 0x604
#define POWER_PM_TMR_PORT  0x608
#define POWER_RESET_PORT   0x610
#define POWER_RESET_VALUE  0x01
#define POWER_S5_TYPE      5 /* SLP_TYP for \_S5 */
#define POWER_SCI_GSI      9

int power_new(struct vm *vm, struct power **out);
void power_free(struct power *power);
void power_reset(struct power *power);

/*
 * The reset control register at 0xcf9 lies inside the PCI bridge's 32-bit address register at
 * 0xcf8; only one-byte writes are meant for it. True: this write was, and is done with.
 */
bool power_intercept(struct vm *vm, uint16_t port, const void *data, unsigned len);

#endif
