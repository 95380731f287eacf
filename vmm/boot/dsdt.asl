/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The machine's name space: one PCI Express host bridge, one serial port, soft power-off.
 * The windows are those of vm.h, the ports those of power.h and serial.h.
 * No _PRT: devices use MSI-X only.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "BELFRY", "BELFRYVM", 0x00000001)
{
    Name (\_S5, Package () { 0x05, 0x00, 0x00, 0x00 })

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, Zero)
            Name (_SEG, Zero)
            Name (_BBN, Zero)
            Name (_CCA, One)

            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0x0000, 0x0000, 0x0000, 0x0000, 0x0001)
                IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0x00000000, 0xC0000000, 0xDFFFFFFF, 0x00000000, 0x20000000)
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Prefetchable, ReadWrite,
                    0x0000000000000000, 0x0000004000000000, 0x0000004FFFFFFFFF,
                    0x0000000000000000, 0x0000001000000000)
            })

            /* The operating system keeps every PCI Express feature but native hot-plug and PME. */
            Method (_OSC, 4, NotSerialized)
            {
                CreateDWordField (Arg3, Zero, CDW1)
                If (LEqual (Arg0, ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766")))
                {
                    CreateDWordField (Arg3, 0x08, CDW3)
                    And (CDW3, 0x18, Local0)
                    If (LNotEqual (CDW3, Local0))
                    {
                        Or (CDW1, 0x10, CDW1)
                    }
                    Store (Local0, CDW3)
                }
                Else
                {
                    Or (CDW1, 0x04, CDW1)
                }
                Return (Arg3)
            }
        }

        /* What no driver may claim: the ECAM and the power registers. */
        Device (RSVD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xE0000000, 0x00100000)
                IO (Decode16, 0x0600, 0x0600, 0x01, 0x11)
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, One)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                IRQNoFlags () { 4 }
            })
        }
    }
}
