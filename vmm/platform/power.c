/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power control (ACPI specification 6.5, chapter 4.8, fixed hardware registers).
 *
 * The registers are touched by vCPU threads, the reset by the main thread while no vCPU runs.
 * Nothing here stops the machine itself: it asks, and the main loop does it. No event is ever
 * raised (there is no button), so the status register stays zero and the SCI silent.
 */
#include "power.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kvm/vm.h"

#define PM_TMR_HZ 3579545ull

#define PM1_CNT_SCI_EN     (1u << 0)
#define PM1_CNT_SLP_EN     (1u << 13)
#define PM1_CNT_SLP_TYP(v) (((v) >> 10) & 7)

#define RESET_CONTROL_PORT    0xcf9
#define RESET_CONTROL_RST_CPU (1u << 2)

#define KBD_PORT        0x64
#define KBD_PULSE_RESET 0xfe

enum { REGION_PM1, REGION_RESET, REGION_KBD, NR_REGIONS };

struct power {
	struct vm *vm;
	atomic_uint pm1_enable;
	atomic_uint pm1_control;
	struct bus_region regions[NR_REGIONS];
	unsigned nr_added;
};

static uint32_t pm_timer(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint32_t)((uint64_t)ts.tv_sec * PM_TMR_HZ +
			  (uint64_t)ts.tv_nsec * PM_TMR_HZ / 1000000000ull);
}

/* All of the block as bytes: whatever width the guest uses, it sees the same. */
static void pm1_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	struct power *p = opaque;
	const uint32_t words[3] = {
		atomic_load(&p->pm1_enable) << 16,
		atomic_load(&p->pm1_control) | PM1_CNT_SCI_EN,
		pm_timer(),
	};

	memcpy(data, (const uint8_t *)words + offset, len);
}

static void control_write(struct power *p, uint32_t value)
{
	atomic_store(&p->pm1_control, value & ~PM1_CNT_SLP_EN & 0xffff);
	if ((value & PM1_CNT_SLP_EN) && PM1_CNT_SLP_TYP(value) == POWER_S5_TYPE)
		vm_request_shutdown(p->vm);
}

static void pm1_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct power *p = opaque;
	uint32_t value = 0;

	memcpy(&value, data, len < sizeof(value) ? len : sizeof(value));
	if (offset == 2 && len == 2)
		atomic_store(&p->pm1_enable, value);
	else if (offset == POWER_PM1_CNT_PORT - POWER_PM1_EVT_PORT && len >= 2)
		control_write(p, value);
}

static void reset_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct power *p = opaque;
	uint8_t value;

	memcpy(&value, data, 1);
	if (offset == 0 && len == 1 && value == POWER_RESET_VALUE)
		vm_request_reset(p->vm);
}

/* There is no keyboard; its controller's output buffer is empty and its input buffer free. */
static void zero_read(void *opaque, uint64_t offset, void *data, unsigned len)
{
	(void)opaque;
	(void)offset;
	memset(data, 0, len);
}

static void kbd_write(void *opaque, uint64_t offset, const void *data, unsigned len)
{
	struct power *p = opaque;
	uint8_t value;

	memcpy(&value, data, 1);
	if (offset == 0 && len == 1 && value == KBD_PULSE_RESET)
		vm_request_reset(p->vm);
}

static const struct bus_ops pm1_ops = { .read = pm1_read, .write = pm1_write };
static const struct bus_ops reset_ops = { .read = zero_read, .write = reset_write };
static const struct bus_ops kbd_ops = { .read = zero_read, .write = kbd_write };

int power_new(struct vm *vm, struct power **out)
{
	struct power *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->vm = vm;
	p->regions[REGION_PM1] = (struct bus_region){
		.base = POWER_PM1_EVT_PORT, .size = 12, .ops = &pm1_ops, .name = "acpi-pm"
	};
	p->regions[REGION_RESET] = (struct bus_region){
		.base = POWER_RESET_PORT, .size = 1, .ops = &reset_ops, .name = "acpi-reset"
	};
	p->regions[REGION_KBD] = (struct bus_region){
		.base = KBD_PORT, .size = 1, .ops = &kbd_ops, .name = "keyboard"
	};
	for (; p->nr_added < NR_REGIONS; p->nr_added++) {
		int rc;

		p->regions[p->nr_added].opaque = p;
		rc = bus_add(vm_pio_bus(vm), &p->regions[p->nr_added]);
		if (rc) {
			power_free(p);
			return rc;
		}
	}
	*out = p;
	return 0;
}

void power_free(struct power *power)
{
	if (!power)
		return;
	while (power->nr_added)
		bus_del(vm_pio_bus(power->vm), &power->regions[--power->nr_added]);
	free(power);
}

void power_reset(struct power *power)
{
	atomic_store(&power->pm1_enable, 0);
	atomic_store(&power->pm1_control, 0);
}

bool power_intercept(struct vm *vm, uint16_t port, const void *data, unsigned len)
{
	uint8_t value;

	if (port != RESET_CONTROL_PORT || len != 1)
		return false;
	memcpy(&value, data, 1);
	if (value & RESET_CONTROL_RST_CPU)
		vm_request_reset(vm);
	return true;
}
